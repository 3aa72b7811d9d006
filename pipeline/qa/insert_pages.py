"""Tables and the chart of small inserts: contrast kept against noise kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table, Value
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE
from ct_cncl.pipeline.inference.target_dose import STRENGTHS
from ct_cncl.pipeline.metrics.bootstrap import Interval
from ct_cncl.pipeline.metrics.characterisation import Area
from ct_cncl.pipeline.metrics.inserts import INSERTS
from ct_cncl.pipeline.metrics.resolution import TaskTransfer
from ct_cncl.pipeline.qa.inserts import SHAPE_MM, SHAPES_HU, InsertResult, InsertScans
from ct_cncl.pipeline.qa.measure import transfers
from ct_cncl.pipeline.qa.phantoms import Scanner

_EDGE_HU = 50.0
"""Contrast of the edge whose task transfer is in the table of strengths."""
LEVELS_HU = (0.1, 0.3)
"""Shifts of a large disc's mean that are counted: one that goes unnoticed and one that can be seen."""


class StrengthRow(NamedTuple):
    """A named strength of one method at the shown dose; ``half_per_mm`` is 50 % of the 50 HU edge's transfer."""

    method: str
    strength: str
    result: InsertResult
    half_per_mm: float | None


@dataclass(frozen=True)
class InsertFindings:
    """All results for small inserts.

    Attributes:
        names: names of the evaluated methods by key.
        found: results by method key (including "input", and "reference" for four times the dose) and dose.
        mixed: results at strengths from 0 to 1, by method key.
        strengths: rows of the table of named strengths.
    """

    names: Mapping[str, str]
    found: dict[tuple[str, float], InsertResult]
    mixed: dict[str, list[InsertResult]]
    strengths: list[StrengthRow]

    def at_strengths(
        self,
        which: tuple[str, float],
        scanner: Scanner,
        judge: Callable[[InsertScans], InsertResult],
        scans: tuple[InsertScans, InsertScans],
        discs: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Measure a method at strengths below 1, for which nothing has to be denoised again.

        Args:
            which: key of the method, and dose of the scans, whose input and result have already been measured.
            scanner: scanner of the phantoms.
            judge: function that measures scans.
            scans: input and result.
            discs: input and result for the discs, (x, y, slices), HU.
        """
        (key, dose), (before, after) = which, scans
        made = {0.0: self.found[INPUT, dose], 1.0: self.found[key, dose]}
        first, second = (one.mean(axis=2, dtype=np.float64) for one in discs)
        for name, share in STRENGTHS.items():
            if share not in made:
                made[share] = judge(before.mixed(after, share))
            transfer = transfers(scanner, first + share * (second - first))[_EDGE_HU]
            known = isinstance(transfer, TaskTransfer) and math.isfinite(transfer.half_per_mm)
            half = transfer.half_per_mm if known and isinstance(transfer, TaskTransfer) else None
            self.strengths.append(StrengthRow(self.names[key], f"{name} ({share:g})", made[share], half))
        self.mixed[key] = [made[share] for share in sorted(made)]

    def charts(self, dose: float) -> list[Chart]:
        """The chart of one dose."""
        return [insert_chart(self.names, dose, self.mixed)]

    def tables(self, doses: Sequence[float]) -> list[Table]:
        """All tables."""
        names = {INPUT: "reconstruction", REFERENCE: "four times the dose", **self.names}
        return insert_tables(names, doses, self.found, self.strengths)


def insert_tables(
    names: Mapping[str, str],
    doses: Sequence[float],
    found: Mapping[tuple[str, float], InsertResult],
    strengths: Sequence[StrengthRow],
) -> list[Table]:
    """Contrast kept and noise left, false structure, shapes told apart, levels; strengths by name.

    Args:
        names: names of the methods by key, including "input"; "reference" is a scan at four times the dose.
        doses: dose fractions, highest first.
        found: results by method key and dose.
        strengths: rows of the last table.
    """
    each = [(names[key], dose, found[key, dose]) for key in names for dose in doses if (key, dose) in found]
    judged = [(name, dose, own) for name, dose, own in each if name not in (names.get(INPUT), names.get(REFERENCE))]
    kept: list[list[Value]] = [
        [name, dose, 100 * own.noise_left, *(cell for one in INSERTS for cell in _share(own.kept.get(one)))]
        for name, dose, own in judged
    ]
    heads = [head for one in INSERTS for head in (f"{one.name}: kept %", "95 % interval")]
    blobs: list[list[Value]] = [
        [name, dose, one.name, own.blobs[one].visible, own.blobs[one].relative] for name, dose, own in each for one in INSERTS
    ]  # fmt: skip
    shapes: list[list[Value]] = [
        [name, dose, contrast, *_area(own.areas[contrast])] for contrast in SHAPES_HU for name, dose, own in each
    ]
    levels: list[list[Value]] = [
        [name, dose, own.shifts_hu.size, *(100 * float((np.abs(own.shifts_hu) > at).mean()) for at in LEVELS_HU),
         float(np.abs(own.shifts_hu).max())]
        for name, dose, own in judged if own.shifts_hu.size
    ]  # fmt: skip
    named: list[list[Value]] = [
        [row.method, row.strength, 100 * row.result.noise_left,
         *(100 * row.result.kept[one].mean if one in row.result.kept else None for one in INSERTS),
         max(b.relative for b in row.result.blobs.values()), row.half_per_mm]
        for row in strengths
    ]  # fmt: skip
    return [
        Table(
            "inserts", "Contrast kept by small inserts, and noise left", ["method", "dose", "noise left %", *heads], kept,
            (0, 2, 0, *[0, 0] * len(INSERTS)),
            "Mean of f(y + s) - f(y) over the insert's disc, over the insert's mean there; s is added to noisy water without noise of its own. "
            "Intervals are over slices. Noise left: standard deviation of result - truth over the input's.",
            names=2,
        ),
        Table(
            "false_structure", "False structure", ["method", "dose", "like an insert of", "blobs/cm2 at the input's level", "relative to the noise left"],
            blobs, (0, 2, 0, 4, 4),
            "Connected regions in which an insert's matched filter exceeds the 99.9 % level of the unprocessed noise, in images without "
            "signal; then with both noises at one standard deviation: above the input's number, what noise is left is blobbier than the scan's.",
        ),
        Table(
            "characterisation", f"Round or spiculated, {SHAPE_MM:g} mm", ["method", "dose", "contrast HU", "area under ROC", "95 % interval", "note"],
            shapes, (0, 2, 0, 3, 0, 0),
            "Channelised Hotelling observer, trained on half of the realizations and tested on the others; 0.5 is guessing.",
        ),
        Table(
            "levels", "Means of discs of 30 mm", ["method", "dose", "discs", *(f"moved by more than {at:g} HU, %" for at in LEVELS_HU), "most HU"],
            levels, (0, 2, 0, 1, 1, 2), "Inside water, 16 pixels from its edge: result - input.",
        ),
        Table(
            "strengths", "Strengths by name", ["method", "strength", "noise left %", *(f"{one.name}: kept %" for one in INSERTS),
            "blobs/cm2, relative, most", "TTF 50 % at 50 HU, 1/mm"], named, (0, 0, 0, *[0] * len(INSERTS), 3, 3),
            "At the dose that single charts show.", names=2,
        ),
    ]  # fmt: skip


def _share(found: Interval | None) -> tuple[Value, Value]:
    if found is None:
        return None, "no place"
    known = found.low is not None and found.high is not None
    return 100 * found.mean, f"{100 * found.low:.0f} to {100 * found.high:.0f}" if known else ""  # type: ignore[operator]


def _area(found: Area | str) -> tuple[Value, Value, Value]:
    if isinstance(found, str):
        return None, None, f"not computed: {found}"
    return found.area, f"{found.low:.2f} to {found.high:.2f}", ""


def insert_chart(names: Mapping[str, str], dose: float, mixed: Mapping[str, Sequence[InsertResult]]) -> Chart:
    """Contrast kept against noise kept at one dose: a line from the input to each method, through its strengths.

    Args:
        names: names of the evaluated methods by key.
        dose: the dose that is shown.
        mixed: results at strengths from 0 to 1, by method key.
    """
    curves = [
        Curve(
            key, f"{names[key]}, {one.name}",
            np.array([100 * own.noise_left for own in line]), np.array([100 * own.kept[one].mean for own in line]),
        )
        for key, line in mixed.items() for one in INSERTS if all(one in own.kept for own in line)
    ]  # fmt: skip
    note = "Each line is one insert from strength 0 (top right) to 1. Up and to the left is better: less noise, more contrast."
    title = f"Contrast kept against noise kept, dose {dose:g}"
    return Chart("contrast_kept", title, "noise kept, %", "contrast kept, %", curves, note=note)
