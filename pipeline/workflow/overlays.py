"""Variants of the method by name: overlays, combinations A+B of them, and settings on top."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import nn

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.config_checks import DESCRIPTION, check_keys, check_values
from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS, network_definition
from ct_cncl.pipeline.workflow.run import (
    config_file,
    merged_config,
    overlay_file,
    overlay_files,
    own_keys,
    parse_overrides,
    root_cause,
)

PAPER = "paper"
"""Name of the recipe that is train.json itself: the paper's network and training."""
_JOINED = re.compile(r"\+(?=[^\d])")
"""Separates the parts of ``A+B+key=value``. It does not match the plus in 1e+3."""


class Variant(NamedTuple):
    """Overlays to merge over train.json in order, and settings on top of them."""

    name: str
    """Names of the overlays and the settings, joined by +."""
    overlays: tuple[Path, ...]
    settings: tuple[str, ...] = ()
    """``KEY=VALUE``."""

    @property
    def files(self) -> list[Path]:
        """The files of train.json and of the overlays."""
        return [config_file("train.json"), *self.overlays]

    def config(self) -> dict[str, Any]:
        """The merged config.

        Raises:
            ConfigError: an overlay is neither JSON nor YAML, or a key or setting is unknown.
        """
        return with_settings(merged_config(self.files), parse_overrides(self.settings))


def with_settings(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with some of its keys set.

    Raises:
        ConfigError: a key is unknown, or a value is text instead of a number.
    """
    check_keys(config, overrides)
    check_values(config, overrides)
    parser = ConfigParser(config=copy.deepcopy(dict(config)))
    for key, value in overrides.items():
        parser[key] = value
    return dict(parser.get())


def variant(text: str) -> Variant:
    """The variant that a text such as ``A``, ``A+B`` or ``A+key=value`` names, where A and B are names or files of overlays.

    Raises:
        ConfigError: an overlay does not exist.

    >>> variant("unet_ln_gelu+width16+texture.weight=1").name
    'unet_ln_gelu+width16+texture.weight=1'
    """
    parts = [text] if Path(text).is_file() else _JOINED.split(text)
    settings = tuple(part for part in parts if "=" in part and not Path(part).is_file())
    overlays = tuple(overlay_file(part).absolute() for part in parts if part not in settings)
    names = [*(path.stem for path in overlays), *(setting.replace("/", "_") for setting in settings)]
    return Variant("+".join(names), overlays, settings)


def distinct(variants: list[Variant]) -> list[Variant]:
    """Return ``variants``, after checking that no two of them have the same name or the same merged config.

    Raises:
        ConfigError: two variants are the same; names both.
    """
    configs = [variant.config() for variant in variants]
    for number, config in enumerate(configs):
        for earlier in range(number):
            if variants[earlier].name == variants[number].name or configs[earlier] == config:
                raise ConfigError(
                    f"Expected every --with to be a different variant, but {variants[earlier].name} and {variants[number].name} "
                    "are the same. Omit one."
                )
    return variants


def variants_with_network() -> list[Variant]:
    """The bundle's overlays that define a network: the paper's first, the others by name."""
    files = overlay_files()
    names = [PAPER, *sorted(name for name in files if name != PAPER)]
    return [variant(name) for name in names if _defines_network(files[name])]


def _defines_network(overlay: Path) -> bool:
    keys = [key.lstrip("+").split("#")[0] for key in own_keys(overlay)]
    return any(key in NETWORK_KEYS for key in keys) and overlay.parent.name != "encoders"


def overlay_list() -> str:
    """A list of the bundle's overlays by group, with one line for each."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, path in overlay_files().items():
        said = str(own_keys(path).get(DESCRIPTION, ""))
        groups.setdefault(path.parent.name, []).append((name, said))
    width = max(len(name) for group in groups.values() for name, _ in group)
    blocks = [
        "\n".join([group, *(f"  {name:{width}}  {said}".rstrip() for name, said in rows)])
        for group, rows in groups.items()
    ]
    return "\n\n".join(blocks)


def network_without_weights(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a config on torch's "meta" device, with shapes and names but no memory and no values.

    Args:
        config: a config with "network_def" and what it refers to.

    Raises:
        ConfigError: the definition cannot be built.
    """
    parser = ConfigParser()
    parser.read_config(network_definition(config))
    try:
        with torch.device("meta"):
            return parser.get_parsed_content("network_def")
    except RuntimeError as error:
        raise ConfigError(f"Expected a network that can be built, but got: {root_cause(error)}") from error


def parameter_count(network: nn.Module) -> int:
    """Number of weights of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
