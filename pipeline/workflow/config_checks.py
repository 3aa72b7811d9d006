"""What a config, an overlay or an override may say: unknown keys, words in the place of numbers and wrong orders are refused."""

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
"""Key of an overlay that says in a line what it is; it does nothing."""
OWN_WORDS = ("_target_", "_disabled_", "_mode_", "_requires_", "_desc_")
"""What MONAI takes besides the arguments of any component."""


def check_keys(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse keys that nothing in ``config`` has or would take. MONAI would accept them in silence.

    A key is known when it is there (``batch_size``, ``network_def#init_std``), or when the component above it takes an
    argument of that name.

    Raises:
        ConfigError: naming the unknown key and what it may have meant.
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
    """Keys anywhere in the config that are called nearly so (1: exactly), with their way down; the shortest ways first."""
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
    """Overrides that several trainings share, less those about a component that this one has set to null.

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
    """Refuse words where the config has a number or a list; expressions and references may be anything.

    Raises:
        ConfigError: naming key, value and what is there.

    >>> check_values({"learning_rate": 2e-4}, {"learning_rate": "$1e-4 / 2"})
    """
    for key, value in overrides.items():
        if not isinstance(value, str) or value.startswith(("$", "@", "%")):
            continue
        node = value_at(config, key)
        if isinstance(node, (int, float)) and not isinstance(node, bool):
            raise ConfigError(f"Expected a number for {key}, {node} for example, but got {value!r}.")
        if isinstance(node, list):
            raise ConfigError(f"Expected a list for {key}, {json.dumps(node)} for example, but got {value!r}.")


def _arguments(node: Any) -> list[str]:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str) or "." not in target:
        return []
    module, name = target.rsplit(".", 1)
    from monai.utils import optional_import

    component, found = optional_import(module, name=name)
    return list(inspect.signature(component).parameters) if found else []


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any], path: Path) -> None:
    """Refuse an overlay with a key that nothing in ``base`` has or takes and nothing in the overlay refers to.

    Args:
        base: what the overlay is merged over, earlier overlays included.
        overlay: its contents.
        path: for the message.

    Raises:
        ConfigError: naming key and file.
    """
    references = set(re.findall(r"[@%](\w+)", json.dumps(overlay)))
    keys = [key.lstrip("+") for key in overlay if key.lstrip("+") not in references and key != DESCRIPTION]
    # MONAI's own words (_target_, _desc_) fit everything that is there; what a new _target_ takes is known from then on.
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
    """Refuse an overlay that would undo in silence what an earlier one changed: a network after a width.

    Args:
        before: earlier overlays and their contents.
        overlay: its contents.
        file: for the message.

    Raises:
        ConfigError: saying which to name first, or which to leave out.

    >>> check_order([(Path("width16.json"), {"network_def#content#width": 16})], {"network_def": {}}, Path("nafnet.json"))
    Traceback (most recent call last):
    ct_cncl.pipeline.common.errors.ConfigError: Expected nafnet before width16, whose network_def.content.width it would replace. Name nafnet first.
    """
    name = file.stem
    nulled: dict[str, str] = {}
    for earlier, contents in before:
        for key, value in contents.items():
            lost = next((own for own in overlay if key.lstrip("+").startswith(f"{own}#")), None)
            if lost is not None and overlay[lost] is not None:  # null takes it away on purpose
                way = key.lstrip("+").replace("#", ".")
                raise ConfigError(
                    f"Expected {name} before {earlier.stem}, whose {way} it would replace. Name {name} first."
                )
            nulled.pop(key, None)
            if value is None:
                nulled[key] = earlier.stem
    for key, by in nulled.items():
        if any(own.lstrip("+").startswith(f"{key}#") for own in overlay):
            raise ConfigError(f"Expected {key} for {name}, but {by} has set it to null. Leave one of the two out.")
