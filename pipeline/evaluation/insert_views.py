"""What the report of inserts shows first: the result in one sentence, and slices with links to the inserts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from ct_cncl.pipeline.evaluation.matching import OpenedScan
from ct_cncl.pipeline.evaluation.record import KeyFigure, Mark, SliceView, Verdict
from ct_cncl.pipeline.metrics.bootstrap import Interval
from ct_cncl.pipeline.metrics.inserts import Insert, Place
from ct_cncl.transforms.common.numbers import counted

_T = TypeVar("_T")
SHOWN_SLICES = 20
"""Largest number of slices on the page."""


def insert_views(
    scan: OpenedScan,
    patient: str,
    volumes: Mapping[str, np.ndarray],
    places: Sequence[Place],
    kinds: Sequence[Insert],
    *,
    most: int,
) -> list[SliceView]:
    """Slices of a scan that hold inserts.

    Args:
        scan: the scan to which the inserts were added.
        patient: "patient 1", ...
        volumes: volumes (columns, rows, slices), HU, by method key.
        places: places of the inserts.
        kinds: all kinds of inserts.
        most: largest number of slices.
    """
    views = []
    for number in evenly(sorted({place.slice for place in places}), most):
        marks = [
            Mark(kinds[one.kind].name, one.x, one.y, kinds[one.kind].diameter_mm)
            for one in places
            if one.slice == number
        ]
        images = {key: np.rint(hu[..., number]).clip(-32768, 32767).astype(np.int16) for key, hu in volumes.items()}
        grid = scan.grid
        label = f"{scan.name}, slice {number}"
        views.append(SliceView(label, patient, grid.pixel_mm, images, {}, "", grid.sides, grid.position(number), marks))
    return views


def evenly(views: Sequence[_T], most: int) -> list[_T]:
    """Choose at most ``most`` of ``views``, evenly spaced.

    >>> evenly([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    chosen = np.unique(np.linspace(0, len(views) - 1, min(most, len(views))).round().astype(int))
    return [views[number] for number in chosen.tolist()]


def insert_verdict(
    name: str, rows: Sequence[Sequence[float | str | None]], noise: Interval, counts: Sequence[int]
) -> Verdict:
    """Contrast kept of the insert that loses most and of the one that loses least, and the remaining noise.

    Args:
        name: name of the method.
        rows: rows of the table: insert, number of inserts, patients, contrast kept in %, its interval as text, ...
        noise: remaining noise, as a fraction.
        counts: number of inserts of each patient.
    """
    known = [row for row in rows if isinstance(row[3], float)]
    judged = f"{name}: {counted(sum(counts), 'insert')} in scans of {counted(len(counts), 'patient')}"
    low, high = noise.low, noise.high
    few = f"mean over {counted(noise.size, 'patient')}, too few for an interval"
    left = KeyFigure(
        "Noise left", 100 * noise.mean, "%", 0, None if low is None else 100 * low, None if high is None else 100 * high,
        few if low is None else f"95 % interval over {noise.size} patients", "in calm soft tissue, anatomy counts as noise",
    )  # fmt: skip
    figures, words = [], []
    for title, row in _ends_of(known):
        ends = [float(text) for text in str(row[4]).split(" to ")] if row[4] else [None, None]
        of = (
            f"95 % interval over {row[2]:.0f} patients"
            if row[4]
            else f"mean over {counted(int(float(row[2] or 0)), 'patient')}, too few for an interval"
        )
        value = float(row[3] or 0.0)
        figures.append(KeyFigure(f"Contrast kept, {title}", value, "%", 0, ends[0], ends[1], of, f"insert of {row[0]}"))
        words.append(f"{value:.0f} % ({row[0]})")
    if not words:
        return Verdict(judged, f"{name} leaves {100 * noise.mean:.0f} % of the noise.", [left])
    text = (
        f"{name} keeps {' to '.join(words)} of the inserts' contrast and leaves {100 * noise.mean:.0f} % of the noise."
    )
    return Verdict(judged, text, [*figures, left])


def _ends_of(rows: Sequence[Sequence[float | str | None]]) -> list[tuple[str, Sequence[float | str | None]]]:
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: float(row[3] or 0.0))
    return [("least", ordered[0])] if len(ordered) == 1 else [("least", ordered[0]), ("most", ordered[-1])]
