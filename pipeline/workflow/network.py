"""Building the network of a definition next to weights, without MONAI, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.definition import NETWORK_TARGETS, network_class_names

_NO_ARGUMENTS = ("_target_", "_mode_", "_desc_", "_requires_", "_disabled_")


def build_network(definition: Mapping[str, Any]) -> nn.Module:
    """Build the generator of a definition, as MONAI's ConfigParser would.

    Args:
        definition: the result of :func:`~ct_cncl.pipeline.workflow.definition.network_config`: the network's config keys, which hold
            constructors in ``ct_cncl.pipeline.networks``, plain arguments, and references to each other.

    Raises:
        ConfigError: the definition has no network, another constructor, or a reference to a missing key.

    >>> build_network({"network_def": {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 2, "depth": 1}}).multiple
    2
    """
    built: dict[str, Any] = {}

    def reference(name: str) -> Any:
        if name not in definition:
            raise ConfigError(
                f"Expected the network's definition to hold {name!r}, but it holds {', '.join(definition)}."
            )
        if name not in built:  # build it once: two branches may share one network
            built[name] = value(definition[name])
        return built[name]

    def value(node: Any) -> Any:
        if isinstance(node, str) and node.startswith("@"):
            return reference(node[1:])
        if isinstance(node, (list, tuple)):
            return [value(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "_target_" not in node:
            return {key: value(item) for key, item in node.items()}
        arguments = {key: value(item) for key, item in node.items() if key not in _NO_ARGUMENTS}
        constructor = partial(_network_class(node["_target_"]), **arguments)
        return constructor if node.get("_mode_") == "callable" else constructor()

    return reference("network_def")


def _network_class(target: Any) -> type[nn.Module]:
    if target not in network_class_names():
        raise ConfigError(f"Expected a network from {NETWORK_TARGETS}*, but got {target!r}, which was not run.")
    from ct_cncl.pipeline import networks

    return getattr(networks, target.removeprefix(NETWORK_TARGETS))
