"""Running the bundle's configs from Python: overlays by name, overrides checked, errors in one line."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.locations import installed_bundle

if TYPE_CHECKING:  # MONAI takes seconds to import, and denoising needs none of it
    from monai.bundle import ConfigWorkflow

NETWORK_KEYS = ("network_def", "content_predictor", "noise_predictor", "fusion", "context_slices")
"""Config keys that define the generator, in train.json, in inference.json and in overlays."""
NETWORK_TARGETS = "ct_cncl.pipeline.networks."
"""What a network definition that comes with weights may build; anything else is not run."""

_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d+|killed by signal: Bus error")
"""In torch's errors from loading with workers, where /dev/shm is too small."""
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
"""How the messages begin in which MONAI wraps an exception."""


def config_file(name: str) -> Path:
    """A config of the installed bundle, for example ``train.json``."""
    return installed_bundle() / "configs" / name


def overlay_file(name: str) -> Path:
    """The file of an overlay, given by its path or by its name in the bundle's ``configs/variants``.

    Raises:
        ConfigError: no such overlay; the message lists those there are.
    """
    if Path(name).is_file():
        return Path(name)
    folder = config_file("variants")
    for suffix in (".json", ".yaml"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    known = sorted(path.stem for path in folder.glob("*") if path.suffix in {".json", ".yaml"})
    raise ConfigError(
        f"Expected the name or path of an overlay, but got {name!r}. There are: {', '.join(known) or 'none'}."
    )


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` strings as a dictionary; values are JSON or Python literals, anything else is text.

    Raises:
        ConfigError: no ``=`` in it.

    >>> parse_overrides(["learning_rate=1e-3", "resume=true", "device=cpu"])
    {'learning_rate': 0.001, 'resume': True, 'device': 'cpu'}
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected KEY=VALUE, but got {assignment!r}, for example max_epochs=10.")
        try:
            overrides[key] = json.loads(text)
        except ValueError:
            try:
                overrides[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                overrides[key] = text
    return overrides


def check_keys(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse keys that nothing in ``config`` has or would take. MONAI would accept them in silence.

    A key is known when it is there (``batch_size``, ``content_predictor#width``), or when the component above it takes an
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
            elif depth == len(parts) - 1 and part in _arguments(node):
                break
            else:
                names = [*node, *_arguments(node)] if isinstance(node, Mapping) else []
                close = difflib.get_close_matches(part, [name for name in names if not name.startswith("_")], n=3)
                hint = (
                    f"did you mean {' or '.join(close)}?"
                    if close
                    else f"known there: {', '.join(names[:30]) or 'nothing'}."
                )
                raise ConfigError(f"Expected a key of the config, but got {key!r}; {hint}")


def check_values(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Refuse words where the config has a number or a list; expressions and references may be anything.

    Raises:
        ConfigError: naming key, value and what is there.

    >>> check_values({"learning_rate": 2e-4}, {"learning_rate": "$1e-4 / 2"})
    """
    for key, value in overrides.items():
        if not isinstance(value, str) or value.startswith(("$", "@", "%")):
            continue
        node: Any = config
        for part in key.split("#"):
            node = node.get(part) if isinstance(node, Mapping) else None
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
    new = [key for key in overlay if key.lstrip("+") not in references and not key.startswith("_")]
    try:
        check_keys(base, [key.lstrip("+") for key in new])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


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
    """``load_config`` of a base and overlays, after ``check_overlay`` of each that is not the bundle's own (those are tested).

    Raises:
        ConfigError: an overlay that is no JSON or YAML, or has a key that nothing before it takes.
    """
    for number, file in enumerate(files):
        if number and not file.is_relative_to(installed_bundle()):
            check_overlay(load_config(files[:number]), own_keys(file), file)
    return load_config(files)


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
    with _left_out("Not all config files are in"):  # where MONAI then looks for the two files that are named below
        return ConfigWorkflow(
            config_file=[str(file) for file in files],
            meta_file=str(config_file("metadata.json")),
            logging_file=str(config_file("logging.conf")),
            run_id=run_id,
            workflow_type=kind,
            **overrides,
        )


@contextmanager
def _left_out(beginning: str) -> Iterator[None]:
    """Keeps messages of MONAI's workflows that begin so out of the log."""
    logger = logging.getLogger("monai.bundle.workflows")

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def run_workflow(workflow: ConfigWorkflow) -> ConfigWorkflow:
    """Initialize, run and finalize; what a workflow raises comes out as it was raised, not wrapped by MONAI.

    Returns:
        ``workflow``, whose components can be looked at.
    """
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except RuntimeError as error:
        cause = root_cause(error)
        if _SHARED_MEMORY.search(str(cause)):
            raise ConfigError(_no_shared_memory()) from error
        raise cause from error
    return workflow


def _no_shared_memory() -> str:
    try:
        size = f", which has {shutil.disk_usage('/dev/shm').total / 2**20:.0f} MiB"  # noqa: S108  where workers leave patches
    except OSError:
        size = ""
    return (
        f"Expected room for the workers' patches in the shared memory /dev/shm{size}, but it is full. Start the container with more "
        "(docker run --shm-size=1g), or take num_workers=0."
    )


def root_cause(error: BaseException) -> BaseException:
    """The exception inside MONAI's wrappers around expressions, components and transforms, or ``error`` itself."""
    while isinstance(error, RuntimeError) and str(error).startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


def network_config(weights: Path) -> dict[str, Any]:
    """The network definition in the ``config.json`` beside ``weights``, without running any of that file.

    Only constructors in ``ct_cncl.pipeline.networks`` with plain arguments are taken.

    Args:
        weights: a run's checkpoint, or a file in a bundle's ``models``, whose ``configs/inference.json`` is read then.

    Returns:
        Overrides for inference.json.

    Raises:
        ConfigError: no such file, or a definition that would run something else.
    """
    path = weights.parent / "config.json"
    if not path.is_file():
        path = weights.resolve().parent.parent / "configs" / "inference.json"
    if not path.is_file():
        raise ConfigError(
            f"Expected the run's config.json beside {weights}, which says what network it is, but there is none. Name the "
            "checkpoint in its run's folder."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"Expected JSON in {path}, but got: {error}.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"Expected an object of JSON in {path}, but got a {type(config).__name__}. Name another run.")
    definition = {key: config[key] for key in NETWORK_KEYS if key in config}
    _refuse_code(definition, path)
    return definition


def network_class_names() -> list[str]:
    """Full names of the constructors that a network's definition may name."""
    from ct_cncl.pipeline import networks

    return [NETWORK_TARGETS + name for name in networks.__all__ if inspect.isclass(getattr(networks, name))]


def _refuse_code(node: Any, path: Path) -> None:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        # By full name: the prefix alone would let in what the modules there import, ...networks.unet.torch.load say.
        if "_target_" in node and target not in network_class_names():
            raise ConfigError(
                f"Expected the network in {path} to be built from {NETWORK_TARGETS}*, but it names {target!r}, which was not run. "
                "Run that config yourself with `python -m monai.bundle run` if you trust it."
            )
        for value in node.values():
            _refuse_code(value, path)
    elif isinstance(node, list):
        for value in node:
            _refuse_code(value, path)
    elif isinstance(node, str) and (node.startswith(("$", "%")) or (node[:1] == "@" and node[1:] not in NETWORK_KEYS)):
        raise ConfigError(
            f"Expected plain values in the network of {path}, but got the expression {node!r}, which was not run. Run that "
            "config yourself with `python -m monai.bundle run` if you trust it."
        )
