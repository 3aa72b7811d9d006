"""Running the bundle's configs from Python: overlays by name, overrides checked, errors in one line."""

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
"""Where the bundle's overlays lie; their names are unique over both."""
_SUFFIXES = (".json", ".yaml")

_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d+|killed by signal: Bus error")
"""In torch's errors from loading with workers, where /dev/shm is too small."""
_LEAST_SHARED_MEMORY = 1 << 20
"""Bytes of it below which a full disk that is not named is taken for it."""
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
"""How the messages begin in which MONAI wraps an exception."""


def config_file(name: str) -> Path:
    """A config of the installed bundle, for example ``train.json``."""
    return installed_bundle() / "configs" / name


def start_logging() -> None:
    """Log as the bundle's ``logging.conf`` says: MONAI's own format, so that lines of both are alike, to standard error."""
    fileConfig(config_file("logging.conf"), disable_existing_loggers=False)


def overlay_files() -> dict[str, Path]:
    """The bundle's overlays by name, recipes first; a recipe's or a research folder's are together."""
    folders = [config_file(name) for name in OVERLAY_FOLDERS]
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    return {path.stem: path for path in found}


def overlay_file(name: str) -> Path:
    """The file of an overlay, given by its path or by its name in the bundle's ``configs/recipes`` or ``configs/research``.

    Raises:
        ConfigError: no such overlay; the message names those that are called alike.
    """
    if Path(name).is_file():
        return Path(name)
    known = overlay_files()
    if name in known:
        return known[name]
    if Path(name).name != name:
        raise ConfigError(
            f"Expected an overlay in {name}, but there is no such file. Check its path; names of overlays: ct-cncl train --list."
        )
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(sorted(known))}."
    raise ConfigError(f"Expected the name or path of an overlay, but got {name!r}; {hint}")


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` strings as a dictionary; values are JSON or Python literals, anything else is text.

    A dot in a key goes one level down, as MONAI's ``#`` does, which may be written instead.

    Raises:
        ConfigError: no ``=`` in it.

    >>> parse_overrides(["learning_rate=1e-3", "resume=true", "device=cpu", "texture.weight=1"])
    {'learning_rate': 0.001, 'resume': True, 'device': 'cpu', 'texture#weight': 1}
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected KEY=VALUE, but got {assignment!r}, for example max_epochs=10.")
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
    """The contents of config files merged in order, as MONAI merges them.

    Raises:
        ConfigError: a file that is no JSON or YAML.
    """
    from monai.bundle import ConfigParser

    try:
        return ConfigParser.load_config_files([str(file) for file in files])
    except Exception as error:
        raise ConfigError(f"Expected JSON or YAML in {', '.join(map(str, files))}, but got: {error}") from error


def own_keys(file: Path) -> dict[str, Any]:
    """A config file's contents, its keys as they are written: a#b for b in a.

    Raises:
        ConfigError: no JSON or YAML.
    """
    from monai.bundle import ConfigParser

    try:
        return ConfigParser.load_config_file(str(file))
    except Exception as error:
        raise ConfigError(f"Expected JSON or YAML in {file}, but got: {error}") from error


def merged_config(files: Sequence[Path]) -> dict[str, Any]:
    """``load_config`` of a base and overlays, after ``check_overlay`` and ``check_order`` of each overlay.

    Raises:
        ConfigError: an overlay that is no JSON or YAML, has a key that nothing before it takes, or undoes an earlier one.
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
    """A MONAI workflow of config files and overrides, every key checked.

    Args:
        files: merged in order; the first is the base, the others overlays.
        run_id: what to run.
        overrides: values by config key.
        kind: "train" or "infer".

    Raises:
        ConfigError: unknown overlay keys or override keys.
    """
    from monai.bundle import ConfigWorkflow

    overrides = dict(overrides or {})
    merged = merged_config(files)
    check_keys(merged, overrides)
    check_values(merged, overrides)
    # about where MONAI looks for the two files that are named below
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
    """Keeps messages that begin so from loggers or handlers."""

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
    """Initialize, run and finalize; what a workflow raises comes out as it was raised, not wrapped by MONAI.

    Returns:
        ``workflow``, whose components can be looked at.
    """
    try:
        # what ends it is raised, and one line for the user; ignite's line before it is empty after Ctrl-C
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
            # TensorBoard's writer names no file
            raise OutputError(
                f"Expected to write the run's files, TensorBoard's events among them, but got: {cause.strerror}. Free some space; "
                "`ct-cncl train --resume` continues from the last checkpoint."
            ) from error
        if _SHARED_MEMORY.search(str(cause)):
            raise ConfigError(_no_shared_memory()) from error
        raise cause from error
    return workflow


def _shared_memory_left() -> float:
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108  where workers leave patches
    except OSError:
        return math.inf


def _no_shared_memory() -> str:
    try:
        size = f", which has {shutil.disk_usage('/dev/shm').total / 2**20:.0f} MiB"  # noqa: S108  where workers leave patches
    except OSError:
        size = ""
    return (
        f"Expected room for the workers' patches in the shared memory /dev/shm{size}, but it is full. Start the container with more "
        "(docker run --shm-size=1g), or take train.dataloader.num_workers=0."
    )


def root_cause(error: BaseException) -> BaseException:
    """The exception inside MONAI's wrappers around expressions, components and transforms, or ``error`` itself."""
    while isinstance(error, RuntimeError) and str(error).startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error
