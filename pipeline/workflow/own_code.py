"""A user's own code that a config names: found next to the overlay, copied into the run, and imported again if trusted."""

from __future__ import annotations

import difflib
import importlib
import pydoc
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.locations import installed_bundle

CODE = "code"
"""Folder in a run for the user's own modules that its config names."""
_LIBRARIES = {"ct_cncl", "monai", "torch", "torchvision", "ignite", "numpy", "collections", "functools", "builtins"}


def own_targets(node: Any) -> list[str]:
    """All ``_target_`` values of a config that are neither this project's nor a known library's, in order, each once.

    >>> own_targets({"a": {"_target_": "own_parts.Net"}, "b": [{"_target_": "torch.nn.L1Loss"}, {"_target_": "RandFlipd"}]})
    ['own_parts.Net']
    """
    found: list[str] = []
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and "." in target and target.partition(".")[0] not in _LIBRARIES:
            found.append(target)
    children: Iterable[Any] = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return list(dict.fromkeys([*found, *(target for child in children for target in own_targets(child))]))


def find_code(overlays: Sequence[Path]) -> list[Path]:
    """Let Python find modules in the folders of overlays. The bundle's own overlays have none.

    Returns:
        The overlays' folders.
    """
    bundle = installed_bundle().resolve()
    folders = [path.resolve().parent for path in overlays]
    own = [folder for folder in dict.fromkeys(folders) if bundle not in (folder, *folder.parents)]
    for folder in own:
        _append(folder)
    return own


def keep_code(config: Mapping[str, Any], folders: Sequence[Path], run: Path) -> None:
    """Copy the modules that a config names from ``folders`` into a run, so that the run can be used without those folders.

    Args:
        config: the merged config.
        folders: the result of :func:`find_code`.
        run: the run's folder.
    """
    for top in dict.fromkeys(target.partition(".")[0] for target in own_targets(config)):
        for folder in folders:
            file, package = folder / f"{top}.py", folder / top
            if file.is_file():
                (run / CODE).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, run / CODE / file.name)
                break
            if package.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(package, run / CODE / top, dirs_exist_ok=True, ignore=ignore)
                break


def use_code(run: Path) -> None:
    """Let Python find the modules that are stored in a run."""
    if (run / CODE).is_dir():
        _append(run / CODE)


def _append(folder: Path) -> None:
    """Append a folder to ``sys.path``, at the end so that it shadows no installed module."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def trusted_code(weights: Path) -> Path | None:
    """The folder of the own modules that belong to weights: in their run, or the top of their bundle; None if there is none."""
    for folder in (weights.parent / CODE, weights.resolve().parent.parent):
        if folder.is_dir() and (folder.name == CODE or (folder / "configs" / "metadata.json").is_file()):
            return folder
    return None


def build_trusted(definition: Mapping[str, Any], weights: Path) -> nn.Module:
    """Build the network of a definition that names own classes. This imports and runs them.

    Args:
        definition: the network's config keys, see :func:`~ct_cncl.pipeline.workflow.definition.network_definition`.
        weights: the weights that the definition belongs to.

    Raises:
        ConfigError: another module of the same name is imported already.
    """
    from monai.bundle import ConfigParser

    folder = trusted_code(weights)
    if folder is not None:
        _append(folder)
        _refuse_other_modules(definition, folder)
    parser = ConfigParser()
    parser.read_config(dict(definition))
    return parser.get_parsed_content("network_def")


def _refuse_other_modules(definition: Mapping[str, Any], folder: Path) -> None:
    """Refuse another module of the same name: Python keeps the first, and with another version weights would silently give other images."""
    for top in dict.fromkeys(target.partition(".")[0] for target in own_targets(definition)):
        own = folder / f"{top}.py"
        if not own.is_file():
            continue
        loaded = Path(str(importlib.import_module(top).__file__))
        if loaded.read_bytes() != own.read_bytes():
            raise ConfigError(
                f"Expected {top} from {own}, but another {top} is imported, from {loaded}. Rename one, or remove the other from Python's path."
            )


def check_targets(config: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Refuse a config that names own classes which do not exist or cannot be imported.

    Args:
        config: the merged config.
        folders: where they may be, from :func:`find_code`.

    Raises:
        ConfigError: a class cannot be found or imported; names it and similar ones.
    """
    for target in own_targets(config):
        try:
            found = pydoc.locate(target)  # as MONAI does
        except pydoc.ErrorDuringImport as error:
            raise ConfigError(f"Expected to import {target}, but got: {' '.join(str(error).split())}.") from error
        if found is None:
            raise ConfigError(f"Expected {target} to be a class or function, but {_missing(target, folders)}")


def _missing(target: str, folders: Sequence[Path]) -> str:
    module, _, name = target.rpartition(".")
    there = pydoc.locate(module)
    if there is None:
        places = " or ".join(str(folder) for folder in folders) or "the overlay's folder"
        return f"there is no module {module}. Put {module.partition('.')[0]}.py into {places}, next to the overlay, or install it."
    close = difflib.get_close_matches(name, dir(there), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"define {name} there."
    return f"{module} ({getattr(there, '__file__', 'built in')}) has no {name}; {hint}"
