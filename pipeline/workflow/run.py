"""Running the bundle's configs from Python, with overlays by name, checked overrides and one-line errors."""

from __future__ import annotations

import ast
import difflib
import errno
import json
import logging
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging.config import fileConfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.config_checks import DESCRIPTION, check_keys, check_order, check_overlay, check_values
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.errors import OutputError

if TYPE_CHECKING:  # MONAI takes seconds to import, and denoising needs none of it
    from monai.bundle import ConfigWorkflow

OVERLAY_FOLDERS = ("recipes", "research")
"""Folders of the bundle's overlays. No name occurs in both."""
_SUFFIXES = (".json", ".yaml")

_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d+|killed by signal: Bus error")
"""Matches torch's errors if data loader workers run out of space in /dev/shm."""
_LEAST_SHARED_MEMORY = 1 << 20
"""If a "disk full" error names no file and /dev/shm has fewer free bytes than this, /dev/shm is blamed."""
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
"""Beginnings of the messages in which MONAI wraps an exception."""


def config_file(name: str) -> Path:
    """A config of the installed bundle, for example ``train.json``."""
    return installed_bundle() / "configs" / name


def start_logging() -> None:
    """Log as the bundle's ``logging.conf`` says: to standard error, in MONAI's format, so that all lines look alike."""
    fileConfig(config_file("logging.conf"), disable_existing_loggers=False)


def overlay_files() -> dict[str, Path]:
    """The files of the bundle's overlays by name, recipes first, with those of each folder together."""
    folders = [config_file(name) for name in OVERLAY_FOLDERS]
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    return {path.stem: path for path in found}


def overlay_file(name: str) -> Path:
    """The file of an overlay, given by its path or by its name in the bundle's ``configs/recipes`` or ``configs/research``.

    Raises:
        ConfigError: there is no such overlay; names similar ones.
    """
    if Path(name).is_file():
        return Path(name)
    known = overlay_files()
    if name in known:
        return known[name]
    if Path(name).name != name:
        raise ConfigError(
            f"Expected an overlay in {name}, but there is no such file. Check its path; `ct-cncl train --list` lists overlays by name."
        )
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known overlays: {', '.join(sorted(known))}."
    raise ConfigError(f"Expected the name or path of an overlay, but got {name!r}; {hint}")


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` strings. Values are JSON or Python literals; anything else is text.

    A dot in a key goes one level down, as does MONAI's ``#``, which also works.

    Raises:
        ConfigError: a string has no key or no ``=``.

    >>> parse_overrides(["learning_rate=1e-3", "resume=true", "device=cpu", "texture.weight=1"])
    {'learning_rate': 0.001, 'resume': True, 'device': 'cpu', 'texture#weight': 1}
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected KEY=VALUE, for example max_epochs=10, but got {assignment!r}.")
        key = key.replace("::", "#").replace(".", "#")
        try:
            overrides[key] = json.loads(text)
        except ValueError:
            try:
                overrides[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                overrides[key] = text
    return overrides


def load_config(files: Sequence[Path]) -> dict[str, Any]:
    """Merge the contents of config files in order, as MONAI does.

    Raises:
        ConfigError: a file is neither JSON nor YAML.
    """
    from monai.bundle import ConfigParser

    try:
        return ConfigParser.load_config_files([str(file) for file in files])
    except Exception as error:
        raise ConfigError(f"Expected JSON or YAML in {', '.join(map(str, files))}, but got: {error}") from error


def own_keys(file: Path) -> dict[str, Any]:
    """The contents of a config file, with its keys as written: a#b for b in a.

    Raises:
        ConfigError: the file is neither JSON nor YAML.
    """
    from monai.bundle import ConfigParser

    try:
        return ConfigParser.load_config_file(str(file))
    except Exception as error:
        raise ConfigError(f"Expected JSON or YAML in {file}, but got: {error}") from error


def merged_config(files: Sequence[Path]) -> dict[str, Any]:
    """Merge a base and overlays, after checking each overlay with ``check_overlay`` and ``check_order``.

    Raises:
        ConfigError: an overlay is neither JSON nor YAML, has an unknown key, or undoes an earlier one.
    """
    before: list[tuple[Path, dict[str, Any]]] = []
    for number, file in enumerate(files[1:], start=1):
        own = own_keys(file)
        check_order(before, own, file)
        check_overlay(load_config(files[:number]), own, file)
        before.append((file, own))
    merged = load_config(files)
    merged.pop(DESCRIPTION, None)
    return merged


def build_workflow(
    files: Sequence[Path], *, run_id: str = "run", overrides: Mapping[str, Any] | None = None, kind: str = "train"
) -> ConfigWorkflow:
    """Build a MONAI workflow from config files and overrides, after checking every key.

    Args:
        files: config files, merged in order; the first is the base, the others are overlays.
        run_id: config key of what to run.
        overrides: values by config key.
        kind: "train" or "infer".

    Raises:
        ConfigError: an overlay or an override has an unknown key or text instead of a number.
    """
    from monai.bundle import ConfigWorkflow

    overrides = dict(overrides or {})
    merged = merged_config(files)
    check_keys(merged, overrides)
    check_values(merged, overrides)
    # messages about where MONAI looks for the two files that are given below
    about_places = ("Not all config files are in", "Setting logging properties")
    with _left_out(about_places, logging.getLogger("monai.bundle.workflows")):
        return ConfigWorkflow(
            config_file=[str(file) for file in files],
            meta_file=str(config_file("metadata.json")),
            logging_file=str(config_file("logging.conf")),
            run_id=run_id,
            workflow_type=kind,
            **overrides,
        )


@contextmanager
def _left_out(beginning: str | tuple[str, ...], *where: logging.Filterer) -> Iterator[None]:
    """Suppress messages with a given beginning in loggers or handlers."""

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    for each in where:
        each.addFilter(others)
    try:
        yield
    finally:
        for each in where:
            each.removeFilter(others)


def run_workflow(workflow: ConfigWorkflow) -> ConfigWorkflow:
    """Initialize, run and finalize a workflow. Exceptions are raised without MONAI's wrappers.

    Returns:
        ``workflow``, whose components can be inspected.

    Raises:
        ConfigError: the shared memory for data loader workers is full.
        OutputError: the disk is full.
    """
    try:
        # the exception is shown to the user in one line; ignite's line before it would repeat it, or be empty after Ctrl-C
        with _left_out(
            ("Engine run is terminating due to", "Current run is terminating due to"),
            *logging.root.handlers,
            *logging.getLogger("ignite").handlers,
        ):
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except (RuntimeError, OSError) as error:
        cause = root_cause(error)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC and cause.filename is None:
            if _shared_memory_left() < _LEAST_SHARED_MEMORY:
                raise ConfigError(_no_shared_memory()) from error
            # TensorBoard's writer does not name the file
            raise OutputError(
                f"Expected to write the run's files, including TensorBoard's events, but got: {cause.strerror}. Free some space; "
                "`ct-cncl train --resume` then continues from the last checkpoint."
            ) from error
        if _SHARED_MEMORY.search(str(cause)):
            raise ConfigError(_no_shared_memory()) from error
        raise cause from error
    return workflow


def _shared_memory_left() -> float:
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108  data loader workers put patches there
    except OSError:
        return math.inf


def _no_shared_memory() -> str:
    try:
        size = f", which has {shutil.disk_usage('/dev/shm').total / 2**20:.0f} MiB"  # noqa: S108  data loader workers put patches there
    except OSError:
        size = ""
    return (
        f"Expected room for the workers' patches in the shared memory /dev/shm{size}, but it is full. Start the container with more "
        "(docker run --shm-size=1g), or set train.dataloader.num_workers=0."
    )


def root_cause(error: BaseException) -> BaseException:
    """The exception inside MONAI's wrappers around expressions, components and transforms, or ``error`` itself."""
    while isinstance(error, RuntimeError) and str(error).startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error
