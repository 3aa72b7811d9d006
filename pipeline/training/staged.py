"""Training in stages with one command. Each starts from the weights of the one before: for example pixel losses, then adversarial."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from ct_cncl.pipeline.common.checkpoint_file import BEST, LAST, load_file
from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.handlers.budget import USED_KEY
from ct_cncl.pipeline.training.run import absolute_paths, resume_hint, train_bundle
from ct_cncl.pipeline.workflow.config_checks import about_what_is_there, check_keys, check_values
from ct_cncl.pipeline.workflow.run import config_file, merged_config, overlay_file, parse_overrides
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.common.locks import alone_in

_RECORD = "stages.json"

logger = logging.getLogger(__name__)


class Stage(NamedTuple):
    """One of several trainings."""

    overlays: tuple[str, ...]
    """Names or absolute paths of overlays."""
    assignments: tuple[str, ...]
    """``KEY=VALUE`` overrides."""

    @property
    def name(self) -> str:
        """The overlays' names joined by +, for the stage's folder."""
        return (
            "+".join(Path(overlay).stem if Path(overlay).is_file() else overlay for overlay in self.overlays) or "train"
        )


def parse_stage(text: str) -> Stage:
    """Parse a stage from overlays and overrides separated by spaces. Overlays may also be joined by +.

    Raises:
        ConfigError: an overlay does not exist.

    >>> parse_stage("gan_lsgan+d_every_10 learning_rate=1e-4")
    Stage(overlays=('gan_lsgan', 'd_every_10'), assignments=('learning_rate=1e-4',))
    """
    words = text.split()
    overlays: list[str] = []
    for word in words:
        if "=" not in word:
            overlays += [word] if Path(word).is_file() else word.split("+")
    # Use absolute paths, since the run may be resumed from another working directory.
    named = tuple(str(Path(overlay).absolute()) if Path(overlay).is_file() else overlay for overlay in overlays)
    for overlay in named:
        overlay_file(overlay)
    return Stage(named, tuple(word for word in words if "=" in word))


def train_run(
    *,
    out: Path,
    data: Path | None = None,
    overlays: Sequence[str] = (),
    stages: Sequence[str] = (),
    resume: bool = False,
    assignments: Sequence[str] = (),
    report: bool = True,
) -> None:
    """Train once or in stages, and write the report of a complete training. A resume detects which of the two it was.

    Args:
        out: folder of the run.
        data: data set; None for the config's.
        overlays: names or paths of overlays, merged in order over train.json.
        stages: see ``train_stages``; empty to train once.
        resume: resume the training in ``out``, with its own configs.
        assignments: ``KEY=VALUE`` overrides.
        report: write ``report.html`` into the folder of the run, or of the last stage.

    Raises:
        ConfigError: a key, a value or an overlay cannot be used, or options would change the stages on resuming.
        CheckpointError: there is nothing to resume, or a run exists where a new one should start.
        DataError: the data set cannot be used.
    """
    with alone_in(out) if is_main_process() else nullcontext():
        last = _trained(out, data, overlays, stages, resume=resume, assignments=assignments)
        if report and is_main_process() and (last / LAST).is_file() and _complete(last):
            _report(last)


def _trained(
    out: Path,
    data: Path | None,
    overlays: Sequence[str],
    stages: Sequence[str],
    *,
    resume: bool,
    assignments: Sequence[str],
) -> Path:
    """Train as :func:`train_run` describes, and return the folder of the last run."""
    if not resume and stages:
        return train_stages(stages, out=out, data=data, overlays=overlays, assignments=assignments)[-1]
    if resume and (stages or (out / _RECORD).is_file()):
        if stages or data or overlays or assignments:
            raise ConfigError(
                "Only --out can be combined with --resume: the stages have their own configs. Omit the other options."
            )
        return resume_stages(out)[-1]
    train_bundle(out=out, data=data, overlays=overlays, resume=resume, assignments=assignments)
    return out


def _report(run: Path) -> None:
    """Write the report. If this fails, only log an error: the training is complete, and must not look as if it had failed."""
    from ct_cncl.pipeline.training.run_report import training_report

    try:
        logger.info("Report: %s", training_report(run))
    except (OSError, ValueError, RuntimeError) as error:
        logger.error("The training is complete, but its report could not be written: %s", error)


def train_stages(
    stages: Sequence[str],
    *,
    out: Path,
    data: Path | None = None,
    overlays: Sequence[str] = (),
    assignments: Sequence[str] = (),
) -> list[Path]:
    """Train stage after stage, each from the best weights of the one before.

    Args:
        stages: see ``parse_stage``; a stage's own overlays and overrides come after ``overlays`` and ``assignments``, and override them.
        out: folder for the runs of the stages, ``1_pixel_only``, ``2_gan_lsgan`` and so on.
        data: data set; None for the config's.
        overlays: overlays for all stages.
        assignments: ``KEY=VALUE`` overrides for all stages.

    Returns:
        The folders of the runs.

    Raises:
        ConfigError: a key, a value or an overlay cannot be used.
        OutputError: the folder already holds a run or stages.
        DataError: the data set cannot be used.
    """
    if (out / _RECORD).exists() or (out / LAST).exists():
        raise OutputError(
            f"Expected a folder without a run in {out}, but it holds one. Resume it with --resume, or name another folder."
        )
    parsed = [parse_stage(text) for text in stages]
    common = parse_stage(" ".join(overlays))
    record = {
        "stages": [
            _checked_stage([*common.overlays, *stage.overlays], assignments, stage.assignments) for stage in parsed
        ],
        "names": [f"{number}_{stage.name}" for number, stage in enumerate(parsed, start=1)],
        "data": None if data is None else str(absolute(data)),
    }
    with replacing(out / _RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return resume_stages(out)


def _checked_stage(overlays: list[str], common: Sequence[str], own: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overlays and assignments of a stage to record, after a check of every key, so that a typo in the last stage shows at once.

    Args:
        overlays: overlays of the stage, those of all stages first.
        common: assignments for all stages; those about a component that this stage does not have (``discriminator.channels``) are dropped.
        own: assignments for this stage only.

    Raises:
        ConfigError: a key, a value or an overlay cannot be used.
    """
    merged = merged_config([config_file("train.json"), *map(overlay_file, overlays)])
    shared = about_what_is_there(merged, parse_overrides(common))
    kept = [text for text in common if set(parse_overrides([text])) <= set(shared)]
    overrides = shared | parse_overrides(own)
    check_keys(merged, overrides)
    check_values(merged, overrides)
    placed = absolute_paths(overrides)
    changed = [f"{key}={placed[key]}" for key in placed if placed[key] != overrides[key]]
    return overlays, [*kept, *own, *changed]  # the last value of a repeated key counts


def resume_stages(out: Path) -> list[Path]:
    """Resume the stages in ``out`` where they stopped. A complete stage is left as it is.

    Returns:
        The folders of all stages.

    Raises:
        ConfigError: ``out`` holds no stages.
    """
    if not (out / _RECORD).is_file():
        raise ConfigError(f"Expected stages in {out}, but it has no {_RECORD}. Start them with --stage.")
    record = read_json(out / _RECORD)
    folders = [out / name for name in record["names"]]
    before: Path | None = None
    for folder, (overlays, assignments) in zip(folders, record["stages"], strict=True):
        if not (folder / LAST).is_file():
            start = [] if before is None else [f"start_from={_best(before)}"]
            data = None if record["data"] is None else Path(record["data"])
            logger.info("Stage %s.", folder.name)
            train_bundle(out=folder, data=data, overlays=overlays, assignments=[*assignments, *start])
        elif not _complete(folder):
            train_bundle(out=folder, resume=True)
        if not _complete(folder):
            logger.error("Stage %s stopped early, so no further stage is started.", folder.name)
            break
        before = folder
    return folders


def _complete(folder: Path) -> bool:
    state = load_file(folder / LAST)["trainer"]
    epochs_done = state["iteration"] >= state["epoch_length"] * state["max_epochs"]
    return bool(epochs_done or state.get(USED_KEY, 0.0) >= 1.0)


def _best(folder: Path) -> Path:
    return absolute(folder / BEST if (folder / BEST).is_file() else folder / LAST)


def stages_hint(out: Path) -> str:
    """A line for the user after an interruption, as :func:`resume_hint`, for a run in stages or a single one."""
    if not (out / _RECORD).is_file():
        return resume_hint(out)
    names = read_json(out / _RECORD)["names"]
    begun = [name for name in names if (out / name / LAST).is_file()]
    if not begun:
        return f"Stopped before the first epoch had finished; resume with: ct-cncl train --resume --out {out}"
    state = load_file(out / begun[-1] / LAST)["trainer"]
    epoch = state["iteration"] // state["epoch_length"]
    return f"Stopped in {begun[-1]} after epoch {epoch}; resume with: ct-cncl train --resume --out {out}"
