"""Variants of the method by name: single overlays, combinations A+B, and the paper's network, which needs none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import nn

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.run import NETWORK_KEYS, config_file, merged_config, overlay_file, own_keys, root_cause

PAPER = "paper"
"""Name of the variant without overlay: train.json as it is."""


class Variant(NamedTuple):
    """Overlays that are merged over train.json in order."""

    name: str
    """The overlays' names joined by +, or "paper"."""
    overlays: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        """train.json and the overlays."""
        return [config_file("train.json"), *self.overlays]

    def config(self) -> dict[str, Any]:
        """The merged config.

        Raises:
            ConfigError: an overlay that is no JSON or YAML, or has a key that nothing takes.
        """
        return merged_config(self.files)


def variant(text: str) -> Variant:
    """The variant that ``A``, ``A+B`` ... or ``paper`` names; A and B are names or files of overlays.

    Raises:
        ConfigError: no such overlay.

    >>> variant("unet_ln_gelu+width16").name
    'unet_ln_gelu+width16'
    """
    parts = [text] if Path(text).is_file() else text.split("+")
    overlays = tuple(overlay_file(part).absolute() for part in parts if part != PAPER)
    return Variant("+".join(path.stem for path in overlays) or PAPER, overlays)


def distinct(variants: list[Variant]) -> list[Variant]:
    """``variants``, if no two of them have one name or one merged config.

    Raises:
        ConfigError: naming the two.
    """
    configs = [variant.config() for variant in variants]
    for number, config in enumerate(configs):
        for earlier in range(number):
            if variants[earlier].name == variants[number].name or configs[earlier] == config:
                raise ConfigError(
                    f"Expected every --with to be another variant, but {variants[earlier].name} and {variants[number].name} "
                    "are the same. Leave one out."
                )
    return variants


def variants_with_network() -> list[Variant]:
    """The paper's network and every overlay of the bundle that defines one of its own, by name."""
    names = sorted(path.stem for path in config_file("variants").glob("*") if path.suffix in {".json", ".yaml"})
    found = [variant(PAPER), *(variant(name) for name in names)]
    return [one for one in found if not one.overlays or _defines_network(one.overlays[0])]


def _defines_network(overlay: Path) -> bool:
    return any(key.lstrip("+").split("#")[0] in NETWORK_KEYS for key in own_keys(overlay))


def network_without_weights(config: Mapping[str, Any]) -> nn.Module:
    """The network that a config defines, on torch's "meta" device: shapes and names, no memory and no numbers.

    Args:
        config: with the keys ``NETWORK_KEYS``.

    Raises:
        ConfigError: the definition cannot be built.
    """
    parser = ConfigParser()
    parser.read_config({key: config[key] for key in NETWORK_KEYS if key in config})
    try:
        with torch.device("meta"):
            return parser.get_parsed_content("network_def")
    except RuntimeError as error:
        raise ConfigError(f"Expected a network that can be built, but got: {root_cause(error)}") from error


def parameter_count(network: nn.Module) -> int:
    """Number of weights of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
