"""Checkpoint files: reads them with ``weights_only=True`` and loads them into a network.

This module needs neither MONAI nor Ignite, which take seconds to import.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.transforms.common.torch_archives import check_archive

LAST = "last.pt"

BEST = "best.pt"

NETWORK_KEY = "network_def"
"""Key of the generator's state dict in every checkpoint."""

AVERAGE_KEY = "ema"
"""Key in ``last.pt`` of the average of the generator's weights; its value is empty if a run keeps no average."""

logger = logging.getLogger(__name__)


def load_file(path: str | Path) -> dict[str, Any]:
    """Load the contents of a checkpoint onto the CPU, with ``weights_only=True``.

    Raises:
        CheckpointError: the file is missing or unreadable, holds more than tensors and plain values, or would unpack to an
            unreasonable size.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_checkpoint(path)
    try:
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"Expected {path} to be a checkpoint that loads with weights_only=True, but got: {first_line(error)} "
            "Name a file that ct-cncl wrote."
        ) from error


def first_line(error: BaseException) -> str:
    """The first sentence of an error from torch, without its advice to load files in a way that could run any code.

    >>> first_line(RuntimeError("Weights only load failed. Re-running `torch.load` with `weights_only=False` will likely work"))
    'Weights only load failed.'
    """
    lines = str(error).strip().splitlines()
    return lines[0].split(" Re-running")[0].split(" In PyTorch 2.6")[0].strip() if lines else type(error).__name__


def load_weights(network: nn.Module, path: str | Path | None, *, averaged: bool = True) -> nn.Module:
    """Load a generator's weights from a run's ``best.pt`` or ``last.pt``, or from a plain state dict.

    Args:
        network: the network, changed in place.
        path: the checkpoint; None keeps the network's weights and logs a warning.
        averaged: prefer the average of the weights if the file holds one.

    Returns:
        ``network``.

    Raises:
        CheckpointError: the checkpoint is unreadable, or belongs to another network.
    """
    if path is None:
        logger.warning("No checkpoint was named: the network keeps its initial weights.")
        return network
    load_strictly(network, network_state(load_file(path), averaged=averaged), f"the network in {path}")
    return network


def network_state(content: Mapping[str, Any], *, averaged: bool = True) -> Mapping[str, Any]:
    """The generator's state dict in the contents of a checkpoint: the average if there is one, else the raw weights.

    >>> network_state({"network_def": {"w": 1}, "ema": {"w": 2}}), network_state({"network_def": {"w": 1}, "ema": {}})
    ({'w': 2}, {'w': 1})
    """
    average = content.get(AVERAGE_KEY) if averaged else None
    return average or content.get(NETWORK_KEY, content)


def load_strictly(target: Any, state: Any, what: str) -> None:
    """Load a state dict into ``target``; its names and shapes must match exactly.

    Args:
        target: an object with ``load_state_dict``.
        state: the state dict.
        what: what is loaded, for the message, such as "the network in best.pt".

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        target.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        own = target.state_dict() if isinstance(target, nn.Module) else {}
        missing = sorted(set(own) - set(state)) if isinstance(state, Mapping) else []
        other = [
            name
            for name in own
            if isinstance(state, Mapping) and name in state and state[name].shape != own[name].shape
        ]
        detail = (
            f"{_shapes_of(other, own, state)}"
            if other
            else f"{len(missing)} tensors are missing"
            if missing
            else str(error).splitlines()[0]
        )
        raise CheckpointError(
            f"Expected {what} to fit this configuration, but it belongs to another one: {detail}. Use the config and overlays "
            "with which it was trained."
        ) from error


def _shapes_of(names: list[str], own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """The first tensor whose shape differs, with both shapes."""
    name = names[0]
    return f"{name} has shape {tuple(state[name].shape)} there and {tuple(own[name].shape)} here"


def missing_checkpoint(path: Path) -> CheckpointError:
    """The error for a path that is not a file; it names the checkpoint if the path is the folder of a run."""
    if (path / BEST).is_file():
        return CheckpointError(f"Expected a checkpoint, but {path} is a folder. Name {path / BEST}.")
    return CheckpointError(f"Expected a checkpoint, but {path} does not exist. Name a run's best.pt.")
