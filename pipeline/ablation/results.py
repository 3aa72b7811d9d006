"""Results of an ablation: one row per variant, read from the run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ct_cncl.pipeline.common.checkpoint_file import BEST, LAST, load_file
from ct_cncl.pipeline.common.csv_files import read_csv
from ct_cncl.pipeline.handlers.branch_health import HEALTH_KEY
from ct_cncl.pipeline.handlers.budget import SECONDS_KEY
from ct_cncl.pipeline.handlers.kept_slices import KEPT
from ct_cncl.pipeline.handlers.nps_distance import SPECTRUM_KIND
from ct_cncl.pipeline.workflow.overlays import network_without_weights, parameter_count
from ct_cncl.transforms.common.json_values import read_json

FAILED = "failed.json"
"""File in a run's folder that says why its training failed."""
NPS_FILE = "nps_distance.json"
JUDGED = ("summary.json", "seconds.json", NPS_FILE, "slices.npz")
"""Files of a run's evaluation that the table and the page are made from."""
SCORES = ("psnr", "ssim", "rmse")
_IMAGES = ("", "_content", "_denoised", "_input")
"""Suffixes of the scores: result, C(y), y - N(y), input."""


class VariantResult(NamedTuple):
    """Everything that is reported of one variant."""

    name: str
    row: dict[str, Any]
    """Figures by the keys of ``COLUMNS`` in ``ct_cncl.pipeline.ablation.table``, as far as there are any."""
    curves: list[dict[str, float]]
    """Validations during training: "iteration", "training_seconds" and the scores by name."""
    slices: dict[str, np.ndarray]
    """Kept slices, see ``KeptSlices``; empty if the variant has no weights to evaluate."""


def evaluation_folder(run: Path, split: str) -> Path:
    """The folder of a run's evaluation in an ablation."""
    return run / f"evaluation_{split}"


def checkpoint_to_evaluate(run: Path) -> Path | None:
    """The run's best checkpoint, or its last one, or None if it has neither."""
    return next((run / name for name in (BEST, LAST) if (run / name).is_file()), None)


def is_evaluated(folder: Path) -> bool:
    """Whether an evaluation is complete, with noise spectra compared by this version's method, as in all other rows."""
    if not all((folder / name).is_file() for name in JUDGED):
        return False
    return read_json(folder / NPS_FILE).get("spectra") == SPECTRUM_KIND


def variant_result(name: str, run: Path, *, split: str) -> VariantResult:
    """Read everything about one variant from its run.

    Args:
        name: name of the variant.
        run: the run's folder, after training and, unless it left no checkpoint, evaluation.
        split: the split that was evaluated.
    """
    config = read_json(run / "config.json")
    network = network_without_weights(config)
    curves = read_curves(run / "metrics.csv")
    history = read_progress(run / "metrics.csv")
    row: dict[str, Any] = {"variant": name, "parameters": parameter_count(network)}
    row |= {
        "iterations": history.get("iteration", 0),
        "patches": history.get("iteration", 0) * int(config["batch_size"]),
        "epochs": history.get("epoch", 0),
        "training_seconds": history.get(SECONDS_KEY, 0.0),
    }
    folder = evaluation_folder(run, split)
    slices: dict[str, np.ndarray] = {}
    if (folder / "summary.json").is_file():
        means = read_json(folder / "summary.json")["means"]
        row |= scores(means, branches=hasattr(network, "branches"))
        texture = read_json(folder / NPS_FILE)
        row |= {f"nps_distance{image}": texture[f"nps_distance{image}"] for image in _IMAGES if f"psnr{image}" in row}
        row["nps_reason"] = texture.get("reason")
        timing = read_json(folder / "seconds.json")
        row["seconds_a_slice"] = timing["seconds"]
        row["timed_on"] = f"{timing['device']}, {timing['threads']} threads"
        with np.load(folder / "slices.npz") as stored:
            slices = {key: stored[key] for key in ("number", *KEPT)}
    judged = checkpoint_to_evaluate(run)
    if judged is not None and judged.name == BEST:
        row["best_epoch"] = load_file(judged)["epoch"]
    row["note"] = _note(run, row)
    return VariantResult(name, row, curves, slices)


def scores(means: Mapping[str, float], *, branches: bool) -> dict[str, float]:
    """Scores of an evaluation and the result's gains over the input, with those of the branches if ``branches`` is set.

    >>> scores({f"{s}{i}": 1.0 for s in SCORES for i in _IMAGES}, branches=False)["gain_psnr"]
    0.0
    """
    images = _IMAGES if branches else ("", "_input")
    row = {f"{score}{image}": means[f"{score}{image}"] for score in SCORES for image in images}
    return row | {f"gain_{score}": means[score] - means[f"{score}_input"] for score in SCORES}


def _note(run: Path, row: Mapping[str, Any]) -> str:
    """What a reader of the figures must know: a failed training, images that are worse than the input, and warnings."""
    notes = []
    if (run / FAILED).is_file():
        error = read_json(run / FAILED)["error"]
        notes.append(f"training failed: {error.split('. ')[0]}")
    images = {"C(y)": "_content", "y - N(y)": "_denoised", "result": ""}
    worse = [title for title, image in images.items() if row.get(f"psnr{image}", math.inf) < row.get("psnr_input", 0.0)]
    if worse:
        notes.append(f"worse than the input: {', '.join(worse)}")
    epochs = read_csv(run / "metrics.csv")
    warned = [epoch for epoch in epochs if epoch.get(HEALTH_KEY)]
    if warned:
        notes.append(
            f"branch health warned in {len(warned)} of {len(epochs)} epochs, first in epoch {warned[0]['epoch']}: "
            f"{warned[0][HEALTH_KEY]}"
        )
    return "; ".join(notes)


def read_progress(path: Path) -> dict[str, Any]:
    """Epoch, iteration and training seconds in the last row of a run's ``metrics.csv``; empty if it has no rows."""
    rows = read_csv(path)
    if not rows:
        return {}
    last = rows[-1]
    return {
        "epoch": int(last["epoch"]),
        "iteration": int(last["iteration"]),
        SECONDS_KEY: float(last.get(SECONDS_KEY) or 0.0),
    }


def read_curves(path: Path) -> list[dict[str, float]]:
    """The validations in a run's ``metrics.csv``: iteration, training seconds and every score."""
    names = ["iteration", SECONDS_KEY, *(f"{score}{image}" for score in SCORES for image in _IMAGES)]
    return [{name: float(row[name]) for name in names if row.get(name)} for row in read_csv(path) if row.get("psnr")]
