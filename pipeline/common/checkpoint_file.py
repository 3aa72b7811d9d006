"""Checkpoints as files: what they hold, loaded with ``weights_only=True`` and put into a network.

Needs neither MONAI nor Ignite, which take seconds to import.
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
"""Key, in ``last.pt``, of the average of the generator's weights; empty where a run keeps none."""

logger = logging.getLogger(__name__)


def load_file(path: str | Path) -> dict[str, Any]:
    """Contents of a checkpoint, loaded with ``weights_only=True`` onto the CPU.

    Raises:
        CheckpointError: missing, unreadable, holding more than tensors and plain values, or growing beyond reason.
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
    """The first sentence of torch's paragraphs, without its advice to load files that may run anything.

    >>> first_line(RuntimeError("Weights only load failed. Re-running `torch.load` with `weights_only=False` will likely work"))
    'Weights only load failed.'
    """
    lines = str(error).strip().splitlines()
    return lines[0].split(" Re-running")[0].split(" In PyTorch 2.6")[0].strip() if lines else type(error).__name__


def load_weights(network: nn.Module, path: str | Path | None, *, averaged: bool = True) -> nn.Module:
    """Load a generator's weights, from a run's ``best.pt`` or ``last.pt`` or from a plain state dict.

    Args:
        network: changed in place.
        path: the checkpoint; None leaves the network as it is and says so.
        averaged: of a ``last.pt`` that holds an average of the weights, take that.

    Returns:
        ``network``.

    Raises:
        CheckpointError: unreadable, or of another network.
    """
    if path is None:
        logger.warning("No checkpoint named: the network keeps the weights it was defined with.")
        return network
    load_strictly(network, network_state(load_file(path), averaged=averaged), f"the network in {path}")
    return network


def network_state(content: Mapping[str, Any], *, averaged: bool = True) -> Mapping[str, Any]:
    """The generator's state dict in a checkpoint's contents: the average where there is one, or the raw weights.

    >>> network_state({"network_def": {"w": 1}, "ema": {"w": 2}}), network_state({"network_def": {"w": 1}, "ema": {}})
    ({'w': 2}, {'w': 1})
    """
    average = content.get(AVERAGE_KEY) if averaged else None
    return average or content.get(NETWORK_KEY, content)


def load_strictly(target: Any, state: Any, what: str) -> None:
    """Give ``target`` a state dict of exactly its own names and shapes.

    Args:
        target: has ``load_state_dict``.
        state: what it gets.
        what: for the message: "the network in best.pt".

    Raises:
        CheckpointError: other names or shapes.
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
            f"Expected {what} to fit this configuration, but it is of another one: {detail}. Use the config and overlays "
            "that it was trained with."
        ) from error


def _shapes_of(names: list[str], own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """The first tensor that differs in shape, with both shapes."""
    name = names[0]
    return f"{name} has shape {tuple(state[name].shape)} there and {tuple(own[name].shape)} here"


def missing_checkpoint(path: Path) -> CheckpointError:
    """What to say of a path that is no file: the run's folder may have been named in the place of its checkpoint."""
    if (path / BEST).is_file():
        return CheckpointError(f"Expected a checkpoint, but {path} is a folder. Name {path / BEST}.")
    return CheckpointError(f"Expected a checkpoint, but {path} does not exist. Name a run's best.pt.")
