"""``ct-cncl demo``: prepare, train, evaluate, denoise and draw, on phantoms and within a few minutes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from ct_cncl.pipeline.common.panel import DIFFERENCE_WINDOW, Tile, picture_panel, save_png
from ct_cncl.pipeline.handlers.evaluation import format_table
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import WINDOWS
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.common.terminal import say
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.dataset.simulated_cases import phantom_cases
from ct_cncl.transforms.dataset.writer import split_cases, write_dataset

_PHANTOMS = {"training": 12, "validation": 2, "test": 4}
"""Number of phantom patients in each split. Seeds are consecutive, so that the network has not seen the test phantoms."""
SLICES = 4
DOSE = 0.25
DATA_RANGE = 4096.0


def run_demo(
    out: Path,
    *,
    overwrite: bool = False,
    phantoms: dict[str, int] | None = None,
    size: int = 512,
    assignments: tuple[str, ...] = (),
) -> dict[str, float]:
    """Run the whole workflow on phantoms and print the results.

    Args:
        out: folder for everything.
        overwrite: replace an earlier demo in ``out``.
        phantoms: number of patients in each split.
        size: side of each slice in pixels.
        assignments: ``KEY=VALUE`` overrides of the training.

    Returns:
        Metrics on the test phantoms.

    Raises:
        DataError: ``out`` holds other files.
    """
    started = time.monotonic()
    _make_room(out, overwrite=overwrite)
    counts = phantoms or _PHANTOMS
    say(
        f"1/4  Preparing {counted(sum(counts.values()), 'phantom')} of {SLICES} slices at quarter dose, with noise-free references"
    )
    data = out / "data"
    _prepare(data, counts, size)
    say(f"2/4  Training a small CNCL, {time.monotonic() - started:.0f} s after the start")
    run = out / "run"
    train_bundle(out=run, data=data, overlays=["demo"], assignments=assignments)
    say(f"3/4  Evaluating it on unseen phantoms, {time.monotonic() - started:.0f} s after the start")
    metrics = evaluate_run(run, split="test")
    say("4/4  Denoising a NIfTI scan")
    picture, denoised = _denoise_and_draw(out, data, run)
    slices = json.loads((run / "evaluation_test/summary.json").read_text(encoding="utf-8"))["slices"]
    say(
        "",
        *format_table(metrics, data_range=DATA_RANGE, slices=slices).split("\n"),
        f"truth: noise-free phantoms; gain {metrics['psnr'] - metrics['psnr_input']:+.2f} dB",
        f"denoised scan  {denoised}",
        f"picture        {picture}",
        f"run            {run}   (tensorboard --logdir {run})",
        f"done in {time.monotonic() - started:.0f} s",
    )
    return metrics


def _make_room(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"Expected {out} not to exist or to be empty, but it holds files. Use --overwrite or another --out."
        )
    if not (out / "data").is_dir():
        raise DataError(f"Expected {out} to hold an earlier demo, but it holds something else. Use another --out.")
    shutil.rmtree(out)


def _prepare(data: Path, counts: dict[str, int], size: int) -> None:
    first_seed, cases = 0, {}
    for split, count in counts.items():
        cases[split] = phantom_cases(count, first_seed=first_seed, slices=SLICES, dose_fraction=DOSE, size=size)
        first_seed += count
    splits = split_cases(cases["training"], validation=cases["validation"], test=cases["test"])
    write_dataset(data, splits, salt="demo")


def _denoise_and_draw(out: Path, data: Path, run: Path) -> tuple[Path, Path]:
    entry = read_datalist(data)["test"][0]
    scan = out / "low_dose.nii.gz"
    nib.save(nib.load(entry["image"]), scan)
    denoised = denoise_scans(scan, out, weights=run / "best.pt", progress=False)[0]
    low, result, truth = (
        np.asarray(nib.load(path).dataobj)[:, :, SLICES // 2].astype(np.float32)  # type: ignore[attr-defined]
        for path in (scan, denoised, entry["label"])
    )
    window = WINDOWS["abdomen"]
    row = [
        Tile("quarter dose", low, window),
        Tile("denoised", result, window),
        Tile("truth", truth, window),
        Tile("removed", low - result, DIFFERENCE_WINDOW),
    ]
    return save_png(picture_panel([row]), out / "demo.png"), denoised
