"""``ct-cncl train`` and ``ct-cncl evaluate RUN`` as functions that run the bundle's configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from ct_cncl.pipeline.common.checkpoint_file import BEST, LAST, load_file
from ct_cncl.pipeline.common.devices import checked_device
from ct_cncl.pipeline.common.distributed import is_main_process, world_size
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.workflow.overlays import with_settings
from ct_cncl.pipeline.workflow.own_code import check_targets, find_code, keep_code, use_code
from ct_cncl.pipeline.workflow.run import (
    build_workflow,
    config_file,
    merged_config,
    overlay_file,
    parse_overrides,
    run_workflow,
)
from ct_cncl.pipeline.workflow.run_values import check_paths, check_run_values, value_at
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.locks import alone_in

PATH_KEYS = ("start_from", "teacher_checkpoint", "texture#encoder#weights", "phantom_dir")
"""Config keys that name files. They are made absolute, so that the run's config works from any working directory."""


def train_bundle(
    *,
    out: Path,
    data: Path | None = None,
    overlays: Sequence[str] = (),
    resume: bool = False,
    assignments: Sequence[str] = (),
) -> ConfigWorkflow:
    """Run the bundle's training.

    Args:
        out: folder of the run.
        data: data set; None for the config's.
        overlays: names or paths of overlays, merged in order over train.json.
        resume: resume the run in ``out``, with its own config.
        assignments: ``KEY=VALUE`` overrides; with ``resume=auto``, a run in ``out`` resumes with these configs.

    Returns:
        The finished workflow.

    Raises:
        ConfigError: a key, a value or an overlay cannot be used.
        CheckpointError: there is nothing to resume, or a run exists where a new one should start.
        DataError: the data set cannot be used.
        OutputError: another process is training in ``out``, or it cannot be written.
    """
    overrides = parse_overrides(assignments)
    if resume:
        if overlays:
            raise ConfigError("--with cannot be combined with --resume: the run has its own config. Omit --with.")
        if not (out / "config.json").is_file() or not (out / LAST).is_file():
            raise CheckpointError(
                f"Expected a run to resume in {out}, but it has no config.json and {LAST}. Name the run's folder with --out."
            )
        files = [out / "config.json"]
    else:
        files = [config_file("train.json"), *(overlay_file(name) for name in overlays)]
    use_code(out)
    folders = find_code(files[1:])
    overrides = absolute_paths(overrides)
    overrides["output_dir"] = str(absolute(out))
    if resume or overrides.get("resume") != "auto":
        overrides["resume"] = resume
    if data is not None:
        overrides["dataset_dir"] = str(absolute(data))
    config = with_settings(merged_config(files), overrides)
    check_paths([*files, overrides["output_dir"], *(value_at(config, key) for key in ("dataset_dir", *PATH_KEYS))])
    check_run_values(config, processes=world_size())
    _check_device(config)
    check_targets(config, folders)
    with alone_in(out) if is_main_process() else nullcontext():
        if is_main_process() and not (out / "config.json").is_file():
            keep_code(config, folders, out)
        return run_workflow(build_workflow(files, run_id="training", overrides=overrides))


def _check_device(config: Mapping[str, Any]) -> None:
    name = config.get("device")
    if isinstance(name, str) and not name.startswith(("$", "@", "%")):
        checked_device(name)


def absolute_paths(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides with absolute paths under ``PATH_KEYS``. Expressions and references are left as they are."""
    return {
        key: str(absolute(value))
        if key in PATH_KEYS and isinstance(value, str) and not value.startswith(("$", "@", "%"))
        else value
        for key, value in overrides.items()
    }


def resume_hint(out: Path) -> str:
    """A line for the user after an interruption: how far the run got, and how to resume it."""
    if not (out / LAST).is_file():
        return f"Stopped before the first epoch had finished: {out} holds no checkpoint yet."
    epoch = load_file(out / LAST)["trainer"]["iteration"] // load_file(out / LAST)["trainer"]["epoch_length"]
    return f"Stopped. {out / LAST} holds the run after epoch {epoch}; resume with: ct-cncl train --resume --out {out}"


def evaluate_run(
    run: Path,
    *,
    data: Path | None = None,
    split: str = "validation",
    out: Path | None = None,
    overwrite: bool = False,
    overlays: Sequence[str] = (),
    assignments: Sequence[str] = (),
) -> dict[str, float]:
    """Evaluate a run's best checkpoint on all slices of a prepared data set, also if its validation took fewer.

    Args:
        run: the run's folder, or a checkpoint in it.
        data: data set; None for the run's.
        split: "training", "validation" or "test".
        out: folder for the results; None for ``evaluation_SPLIT`` in the run's folder.
        overwrite: replace an earlier evaluation.
        overlays: names or paths of overlays, merged in order over evaluate.json.
        assignments: ``KEY=VALUE`` overrides.

    Returns:
        Means over slices by metric, for the config's data range.

    Raises:
        ConfigError: ``run`` has no config, or a key is unknown.
        CheckpointError: there is no checkpoint, or it belongs to another network.
        DataError: the data set cannot be used.
    """
    checkpoint = run / BEST if run.is_dir() else run
    folder = absolute(checkpoint.parent)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"Expected a run with its config.json in {folder}, but there is none. Name a folder that `ct-cncl train` wrote."
        )
    use_code(folder)
    overrides: dict[str, Any] = parse_overrides(assignments) | {
        "output_dir": str(folder),
        "checkpoint": str(absolute(checkpoint)),
        "split": split,
        "overwrite": overwrite,
    }
    if data is not None:
        overrides["dataset_dir"] = str(absolute(data))
    if out is not None:
        overrides["evaluation_dir"] = str(absolute(out))
    files = [folder / "config.json", config_file("evaluate.json"), *(overlay_file(name) for name in overlays)]
    config = with_settings(merged_config(files), overrides)
    check_paths([*files, *(config.get(key) for key in ("output_dir", "checkpoint", "evaluation_dir", "dataset_dir"))])
    _check_device(config)
    with alone_in(out or folder / f"evaluation_{split}") if is_main_process() else nullcontext():
        workflow = run_workflow(build_workflow(files, overrides=overrides))
    return dict(workflow.parser.get_parsed_content("validate#evaluator").state.metrics)
