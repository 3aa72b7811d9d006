"""Reading the definition of a network that lies next to its weights, as plain data and without running any of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.errors import ConfigError

NETWORK_KEYS = ("network_def", "context_slices")
"""Config keys that define the generator, in train.json, in inference.json and in overlays."""

NETWORK_TARGETS = "ct_cncl.pipeline.networks."
"""Prefix of what a network definition that comes with weights may build. Anything else is not run."""


def network_config(weights: Path, *, trust: bool = False) -> dict[str, Any]:
    """Read the network definition in the ``config.json`` next to ``weights``, without running any of that file.

    Only constructors in ``ct_cncl.pipeline.networks`` with plain arguments are accepted.

    Args:
        weights: a run's checkpoint, or a file in a bundle's ``models``; then ``configs/inference.json`` is read.
        trust: accept any definition, to be built by :func:`~ct_cncl.pipeline.workflow.own_code.build_trusted`.

    Returns:
        Overrides for inference.json.

    Raises:
        ConfigError: there is no such file, it is not JSON, or the definition would run other code.
    """
    path = weights.parent / "config.json"
    if not path.is_file():
        path = weights.resolve().parent.parent / "configs" / "inference.json"
    if not path.is_file():
        raise ConfigError(
            f"Expected the run's config.json next to {weights}, which defines the network, but there is none. Name the checkpoint in "
            "its run's folder."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"Expected JSON in {path}, but got: {error}.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"Expected a JSON object in {path}, but got a {type(config).__name__}. Name another run.")
    definition = network_definition(config)
    if not trust:
        _refuse_code(definition, path, definition)
    return definition


def network_definition(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that defines its network: "network_def" and everything that it refers to.

    >>> network_definition({"network_def": {"in_channels": "@context_slices"}, "context_slices": 3, "seed": 0})
    {'network_def': {'in_channels': '@context_slices'}, 'context_slices': 3}
    """
    found: dict[str, Any] = {}
    wanted = list(NETWORK_KEYS)
    while wanted:
        key = wanted.pop(0)
        if key in config and key not in found:
            found[key] = config[key]
            wanted += _references(config[key])
    return found


def _references(node: Any) -> list[str]:
    """The top-level keys that a part of a config refers to."""
    if isinstance(node, Mapping):
        return [name for value in node.values() for name in _references(value)]
    if isinstance(node, list):
        return [name for value in node for name in _references(value)]
    return [node[1:]] if isinstance(node, str) and node.startswith("@") else []


def network_class_names() -> list[str]:
    """Full names of the constructors that a network definition may name."""
    from ct_cncl.pipeline import networks

    return [NETWORK_TARGETS + name for name in networks.__all__ if inspect.isclass(getattr(networks, name))]


def _refuse_code(node: Any, path: Path, definition: Mapping[str, Any]) -> None:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        # Compare full names: a prefix would also allow what the modules import, such as ...networks.unet.torch.load.
        if "_target_" in node and target not in network_class_names():
            raise ConfigError(
                f"Expected the network in {path} to be built from {NETWORK_TARGETS}*, but it names {target!r}, which was not run. "
                f"If you trust its author, --trust (trust=True) imports and runs {target}."
            )
        for value in node.values():
            _refuse_code(value, path, definition)
    elif isinstance(node, list):
        for value in node:
            _refuse_code(value, path, definition)
    elif isinstance(node, str) and (
        node.startswith(("$", "%")) or (node[:1] == "@" and node[1:] not in {*NETWORK_KEYS, *definition})
    ):
        raise ConfigError(
            f"Expected plain values in the network of {path}, but got the expression {node!r}, which was not run. If you "
            "trust its author, --trust (trust=True) runs it."
        )
