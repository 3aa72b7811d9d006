"""Checks of configs, overlays and overrides. They refuse unknown keys, text instead of numbers, and overlays in the wrong order."""

from __future__ import annotations

import copy
import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.run_values import value_at

DESCRIPTION = "_desc_"
"""Key of an overlay that describes it in one line. It has no effect."""
OWN_WORDS = ("_target_", "_disabled_", "_mode_", "_requires_", "_desc_")
"""Keys that MONAI accepts in any component, besides its arguments."""


def check_keys(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse keys that ``config`` does not have or accept. MONAI would silently accept them.

    A key is known if the config has it (``batch_size``, ``network_def#init_std``), or if the component above it takes an
    argument of that name.

    Raises:
        ConfigError: a key is unknown; names the key and similar ones.
    """
    for key in keys:
        node: Any = config
        parts = key.split("#")
        for depth, part in enumerate(parts):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, Sequence) and not isinstance(node, str) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif depth == len(parts) - 1 and (part in _arguments(node) or (part in OWN_WORDS and "_target_" in node)):
                break
            else:
                names = list(dict.fromkeys([*node, *_arguments(node)])) if isinstance(node, Mapping) else []
                close = difflib.get_close_matches(part, [name for name in names if not name.startswith("_")], n=3)
                known = [name for name in names if not name.startswith("_")]
                here = [".".join([*parts[:depth], name]) for name in close]
                near = _like_anywhere(config, part, least=0.9) or here or _like_anywhere(config, part, least=0.75)
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else f"known there: {', '.join(known[:30]) or 'nothing'}."
                )
                raise ConfigError(f"Expected a key of the config, but got {key.replace('#', '.')!r}; {hint}")


def _like_anywhere(config: Mapping[str, Any], name: str, *, least: float) -> list[str]:
    """Full keys anywhere in the config that are similar to ``name`` by at least ``least`` (1: equal), the most similar first."""
    found: list[tuple[float, int, str]] = []

    def look(node: Any, way: str) -> None:
        if not isinstance(node, Mapping):
            return
        for key, value in [*node.items(), *((name, None) for name in _arguments(node) if name not in node)]:
            here = f"{way}.{key}" if way else str(key)
            likeness = max(
                difflib.SequenceMatcher(None, name, text).ratio()
                for text in (str(key), here.replace(".", "_"), f"{way.rsplit('.', maxsplit=1)[-1]}_{key}")
            )
            if likeness >= least and not str(key).startswith("_"):
                found.append((-likeness, here.count("."), here))
            look(value, here)

    look(config, "")
    return [way for _, _, way in sorted(found)[:3]]


def about_what_is_there(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Drop those of several trainings' shared overrides that are about a component that this config sets to null.

    >>> about_what_is_there({"discriminator": None}, {"discriminator#channels": 16, "seed": 1})
    {'seed': 1}
    """
    absent = {key for key in overrides if "#" in key and _under_null(config, key)}
    return {key: value for key, value in overrides.items() if key not in absent}


def _under_null(config: Mapping[str, Any], key: str) -> bool:
    parts = key.split("#")
    for depth in range(1, len(parts)):
        above: Any = value_at(config, "#".join(parts[: depth - 1])) if depth > 1 else config
        if isinstance(above, Mapping) and parts[depth - 1] in above and above[parts[depth - 1]] is None:
            return True
    return False


def check_values(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Refuse text where the config has a number or a list. Expressions and references are accepted.

    Raises:
        ConfigError: a value is text; names the key, the value and the config's value.

    >>> check_values({"learning_rate": 2e-4}, {"learning_rate": "$1e-4 / 2"})
    """
    for key, value in overrides.items():
        if not isinstance(value, str) or value.startswith(("$", "@", "%")):
            continue
        node = value_at(config, key)
        if isinstance(node, (int, float)) and not isinstance(node, bool):
            raise ConfigError(f"Expected a number for {key}, for example {node}, but got {value!r}.")
        if isinstance(node, list):
            raise ConfigError(f"Expected a list for {key}, for example {json.dumps(node)}, but got {value!r}.")


def _arguments(node: Any) -> list[str]:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str) or "." not in target:
        return []
    module, name = target.rsplit(".", 1)
    from monai.utils import optional_import

    component, found = optional_import(module, name=name)
    return list(inspect.signature(component).parameters) if found else []


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any], path: Path) -> None:
    """Refuse an overlay with a key that ``base`` does not have or accept and that the overlay itself does not refer to.

    Args:
        base: the config that the overlay is merged over, including earlier overlays.
        overlay: the overlay's contents.
        path: the overlay's file, for the message.

    Raises:
        ConfigError: a key is unknown; names the key and the file.
    """
    references = set(re.findall(r"[@%](\w+)", json.dumps(overlay)))
    keys = [key.lstrip("+") for key in overlay if key.lstrip("+") not in references and key != DESCRIPTION]
    # MONAI's own keys (_target_, _desc_) are valid in every component. A new _target_ determines which other keys are valid.
    own = [key for key in keys if key.rpartition("#")[2].startswith("_")]
    try:
        check_keys(base, [key.rpartition("#")[0] for key in own])
        changed = copy.deepcopy(dict(base))
        for key in own:
            value_at(changed, key.rpartition("#")[0])[key.rpartition("#")[2]] = overlay[key]
        check_keys(changed, [key for key in keys if key not in own])
    except ConfigError as error:
        name = path.stem if path.is_relative_to(installed_bundle()) else path
        raise ConfigError(f"{name}: {error}") from error


def check_order(before: Sequence[tuple[Path, Mapping[str, Any]]], overlay: Mapping[str, Any], file: Path) -> None:
    """Refuse an overlay that would silently undo a change of an earlier one, such as a network after its width.

    Args:
        before: earlier overlays and their contents.
        overlay: the overlay's contents.
        file: the overlay's file, for the message.

    Raises:
        ConfigError: says which overlay to name first, or that one must be omitted.

    >>> check_order([(Path("width16.json"), {"network_def#content#width": 16})], {"network_def": {}}, Path("nafnet.json"))
    Traceback (most recent call last):
    ct_cncl.pipeline.common.errors.ConfigError: Expected nafnet before width16, whose network_def.content.width it would replace. Name nafnet first.
    """
    name = file.stem
    nulled: dict[str, str] = {}
    for earlier, contents in before:
        for key, value in contents.items():
            lost = next((own for own in overlay if key.lstrip("+").startswith(f"{own}#")), None)
            if lost is not None and overlay[lost] is not None:  # null removes it on purpose
                way = key.lstrip("+").replace("#", ".")
                raise ConfigError(
                    f"Expected {name} before {earlier.stem}, whose {way} it would replace. Name {name} first."
                )
            nulled.pop(key, None)
            if value is None:
                nulled[key] = earlier.stem
    for key, by in nulled.items():
        if any(own.lstrip("+").startswith(f"{key}#") for own in overlay):
            raise ConfigError(f"Expected {key} for {name}, but {by} has set it to null. Omit one of the two overlays.")
