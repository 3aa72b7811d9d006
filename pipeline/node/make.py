"""Denoising one job with the code of ``ct-cncl denoise``, drawing its pictures, and measuring its noise before and after."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from ct_cncl.pipeline.common.panel import DIFFERENCE_WINDOW, Tile, picture_panel, save_png
from ct_cncl.pipeline.inference.batch import ArchiveRun
from ct_cncl.pipeline.inference.denoising import Denoising
from ct_cncl.pipeline.inference.options import DenoiseOptions
from ct_cncl.pipeline.inference.places import places_of
from ct_cncl.pipeline.inference.records import read_record
from ct_cncl.pipeline.inference.work_folder import work_folder
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.jobs import Job
from ct_cncl.pipeline.node.spool import Spool, sync_folder_or_fail
from ct_cncl.pipeline.weights.domain import sampled
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.anatomy.regions import noise_level
from ct_cncl.transforms.common.hu import WINDOWS
from ct_cncl.transforms.series import ScanSource
from ct_cncl.transforms.series.find import search
from ct_cncl.transforms.series.slices import open_slices


def options_of(action: Mapping[str, Any]) -> DenoiseOptions:
    """Convert a rule's action to options of ``denoise``."""
    target = action.get("target_dose")
    return DenoiseOptions(
        weights=action.get("weights"),
        strength=action.get("strength") if target is None else None,
        target_dose=target,
        precision=action.get("precision", "fp32"),
        save=tuple(action.get("save") or ()),
        derived=bool(action.get("derived")),
        progress=False,
    )


def make(job: Job, members: Sequence[sqlite3.Row], spool: Spool, weights: Weights) -> tuple[dict[str, Any], list[str]]:
    """Denoise a job's objects, and put all results in place at once.

    Args:
        job: a job that this worker has claimed.
        members: the job's objects.
        spool: the node's spool.
        weights: the weights of the job's rule.

    Returns:
        The outcome (``files`` with kind, path and UIDs; noise before and after in HU; seconds) and the warnings.

    Raises:
        NodeError: an object is missing from the spool.
        ScanError: the scan cannot be denoised.
        OSError: the disk is full, or another disk error.
    """
    started = time.perf_counter()
    work = spool.job_work(job.id)
    shutil.rmtree(work, ignore_errors=True)
    source, out = work / "in", work / "out"
    source.mkdir(parents=True, mode=0o700)
    for row in members:
        if not row["used"]:
            continue
        if row["path"] is None or not (spool.folder / row["path"]).is_file():
            raise NodeError(
                "expected all objects of the series in the spool, but some are gone; send it again, then retry"
            )
        os.link(spool.folder / row["path"], source / Path(row["path"]).name)
    # The records hold what is printed on the terminal; in the node's log it would reveal file names.
    with work_folder(out) as making, redirect_stderr(StringIO()):
        asked = options_of(job.action)
        run = ArchiveRun(
            source, places_of(out), search(source), tasks=[Denoising(weights, asked)], asked=asked, work=making
        )
        run.all()
    records = [read_record(own.record) for own in run.jobs]
    warnings = [text for record in records for text in record.get("warnings") or []]
    clipped = [text for record in records for text in record.get("clipped") or []]
    looks = _look(run.jobs[0].source, run.jobs[0].targets["denoised"], out / "pictures", work)
    final = spool.job_results(job.id)
    files = [
        _described(path, kind, final / path.relative_to(out))
        for own in run.jobs
        for kind, folder in own.targets.items()
        for path in sorted(folder.iterdir())
    ]
    shutil.rmtree(final, ignore_errors=True)
    out.replace(final)
    sync_folder_or_fail(final.parent)
    shutil.rmtree(work, ignore_errors=True)
    relative = [entry | {"path": entry["path"].relative_to(spool.folder).as_posix()} for entry in files]
    outcome = {
        "files": relative,
        "slices": sum(int(record.get("slices") or 0) for record in records),
        "seconds": round(time.perf_counter() - started, 3),
        "weights": weights.checksum,
        **looks,
    }
    return outcome, [*warnings, *clipped]


def _described(path: Path, kind: str, final: Path) -> dict[str, Any]:
    header = pydicom.dcmread(
        path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID"]
    )
    return {
        "kind": kind,
        "path": final,
        "uid": str(header.SOPInstanceUID),
        "sop_class": str(header.SOPClassUID),
        "series": str(header.SeriesInstanceUID),
        "syntax": str(header.file_meta.TransferSyntaxUID),
    }


def _look(source: ScanSource, result: Path, pictures: Path, work: Path) -> dict[str, Any]:
    """Save pictures of the middle slice, and measure the noise of some slices before and after in HU (None without soft tissue)."""
    made = search(result).scans[0]
    scratch = work / "look"
    scratch.mkdir()
    before, after = open_slices(source, scratch), open_slices(made, scratch)
    numbers = [number for number in sampled(before.count) if number < after.count]
    pairs = [(before.read(number).hu, after.read(number).hu) for number in numbers]
    middle = min(before.count, after.count) // 2
    first, second = before.read(middle).hu, after.read(middle).hu
    window = WINDOWS["abdomen"]
    tiles = {
        "input": Tile("input", first, window),
        "result": Tile("denoised", second, window),
        "removed": Tile("removed", first - second, DIFFERENCE_WINDOW),
    }
    for name, tile in tiles.items():
        save_png(picture_panel([[tile]]), pictures / f"{name}.png")
    return {name: _noise([pair[place] for pair in pairs]) for place, name in enumerate(("noise_before", "noise_after"))}


def _noise(slices: Sequence[np.ndarray]) -> float | None:
    """Noise in soft tissue in HU; None if there is no soft tissue."""
    try:
        return round(float(noise_level(np.stack(slices, axis=-1))), 2)
    except ValueError:
        return None
