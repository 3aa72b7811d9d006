"""Iterate over the slices of a reference and of the methods that are evaluated against it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch

from ct_cncl.pipeline.evaluation.labels import Labels, whole_labels
from ct_cncl.pipeline.evaluation.matching import OpenedScan
from ct_cncl.pipeline.evaluation.measures import NOISE_KEYS
from ct_cncl.pipeline.evaluation.record import REFERENCE, Measure, SliceRow, SliceView
from ct_cncl.pipeline.evaluation.slice_figures import Figures, MeasuredSlice, measure_slice, short_reason
from ct_cncl.pipeline.metrics.tissue import SMOOTHING, tissue_masks_from_labels
from ct_cncl.transforms.common.hu import Window
from ct_cncl.transforms.series.grid import SliceGrid

_MOST_WORKERS = 4


@dataclass(frozen=True, eq=False)
class MethodScans:
    """A method's scans, matched to those of the reference.

    Attributes:
        key: key of the method.
        scans: scans in the order of the reference's.
        maps: maps in the same order, by names out of ``record.MAPS``; empty if the method has none.
    """

    key: str
    scans: Sequence[OpenedScan]
    maps: Mapping[str, Sequence[OpenedScan]] = field(default_factory=dict)


@dataclass
class AllSlices:
    """The results of all slices.

    Attributes:
        rows: rows of every method and slice.
        patches: uniform patches (n, k, k), HU, by patient, scan number and method (including "reference").
        calibration: disagreement and absolute error of some pixels by method, in parts of (2, n), HU.
        views: slices for display.
        reference_rows: noise and CNR of the reference itself on every slice.
    """

    rows: list[SliceRow] = field(default_factory=list)
    patches: dict[tuple[str, int, str], list[np.ndarray]] = field(default_factory=dict)
    calibration: dict[str, list[np.ndarray]] = field(default_factory=dict)
    views: list[SliceView] = field(default_factory=list)
    reference_rows: list[SliceRow] = field(default_factory=list)

    def add(
        self, judged: MeasuredSlice, methods: Sequence[str], *, name: str, number: int, scan: int, patient: str
    ) -> None:
        """Add the results of slice ``number`` of the scan called ``name``, the ``scan``-th of the reference."""
        for key in methods:
            figures = judged.figures[key]
            self.rows.append(SliceRow(key, name, number, patient, figures.values, figures.missing))
        own = judged.reference
        self.reference_rows.append(SliceRow(REFERENCE, name, number, patient, own.values, own.missing))
        for key, patches in judged.patches.items():
            if len(patches):
                self.patches.setdefault((patient, scan, key), []).append(patches)
        for key, pixels in judged.calibration.items():
            self.calibration.setdefault(key, []).append(pixels)


def measure_slices(
    reference: Sequence[OpenedScan],
    patients: Sequence[str],
    methods: Sequence[MethodScans],
    measures: Sequence[Measure],
    *,
    windows: Mapping[str, Window],
    region: str,
    shown: int,
    labels: Labels | None = None,
    tick: Callable[[], None] = lambda: None,
) -> AllSlices:
    """Evaluate every slice of the reference, on several threads, and collect the results in order.

    Args:
        reference: scans of the reference.
        patients: patient of each scan, as named in the record.
        methods: methods to evaluate, including the input, with the key "input".
        measures: all figures, so that none is missing without a reason.
        windows: windows of PSNR, SSIM and VIF by name.
        region: pixels over which image figures are computed, out of ``measures.REGIONS``.
        shown: number of slices kept for display, evenly spaced.
        labels: label volumes of the tissues; None takes tissues from the reference's HU.
        tick: function called after each slice.
    """
    jobs = [(scan, number) for scan, own in enumerate(reference) for number in range(own.slices.count)]
    kept = {jobs[k] for k in np.unique(np.linspace(0, len(jobs) - 1, min(shown, len(jobs))).round().astype(int))}
    keys = [measure.key for measure in measures if measure.key not in NOISE_KEYS]
    slices = _Reader(reference, methods, labels)
    result = AllSlices()

    def judge(job: tuple[int, int]) -> tuple[SlicePlace, MeasuredSlice]:
        read = slices.read(*job)
        return read, measure_place(read, keys, windows, region)

    for (scan, number), (read, judged) in zip(jobs, _in_order(judge, jobs)):
        name, patient = reference[scan].name, patients[scan]
        result.add(judged, [method.key for method in methods], name=name, number=number, scan=scan, patient=patient)
        if (scan, number) in kept and read.reference is not None:
            result.views.append(view_of(read, f"{name}, slice {number}", patient, reference[scan].grid, number))
        tick()
    return result


@dataclass
class SlicePlace:
    """One place: the images that could be read there, and the reasons why others could not.

    Attributes:
        reference: (x, y), HU.
        padded: bool (x, y), True on the scanner's padding.
        images: images by method, HU.
        maps: maps by method and name, HU.
        missing: reason why there is no image, by method.
        tissues: masks (x, y) by tissue, from labels; None if tissues are taken from the reference's HU.
        no_labels: reason why there are no labels here.
    """

    reference: np.ndarray | None = None
    padded: np.ndarray | None = None
    images: dict[str, np.ndarray] = field(default_factory=dict)
    maps: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    tissues: dict[str, np.ndarray] | None = None
    no_labels: str = ""


class _Reader:
    """Reads the same place of every scan, in one thread at a time, since multi-frame files keep open data."""

    def __init__(self, reference: Sequence[OpenedScan], methods: Sequence[MethodScans], labels: Labels | None) -> None:
        self.scans, self.methods, self.labels = reference, methods, labels
        self._partners: dict[int, list[int | None]] = {}
        self._lock = Lock()

    def read(self, scan: int, number: int) -> SlicePlace:
        with self._lock:
            own, found = self.scans[scan], SlicePlace()
            try:
                whole = own.slices.read(number)
                _refuse_constant(whole.hu)
                _refuse_small(whole.hu)
                found.reference, found.padded = whole.hu, whole.padded
            except ValueError as error:
                found.missing = {method.key: f"the reference: {short_reason(error)}" for method in self.methods}
                return found
            for method in self.methods:
                try:
                    image = self._at(method.scans[scan], own, number)
                    _refuse_constant(image)
                except ValueError as error:
                    found.missing[method.key] = short_reason(error)
                    continue
                found.images[method.key] = image
                found.maps[method.key] = self._maps(method, scan, number)
            if self.labels is not None:
                self._add_tissues(found, self.labels, scan, number)
            return found

    def _add_tissues(self, found: SlicePlace, labels: Labels, scan: int, number: int) -> None:
        found.tissues = {}
        try:
            here = whole_labels(self._at(labels.scans[scan], self.scans[scan], number))
        except ValueError as error:
            found.no_labels = f"labels: {short_reason(error)}"
            return
        valid = None if found.padded is None else ~found.padded
        found.tissues = tissue_masks_from_labels(here, labels.classes, valid=valid)

    def _maps(self, method: MethodScans, scan: int, number: int) -> dict[str, np.ndarray]:
        """Maps that can be read at this place; for others, the figure's reason says that there is no map."""
        found = {}
        for name, scans in method.maps.items():
            with suppress(ValueError):
                found[name] = self._at(scans[scan], self.scans[scan], number)
        return found

    def _at(self, other: OpenedScan, own: OpenedScan, number: int) -> np.ndarray:
        if id(other) not in self._partners:
            self._partners[id(other)] = own.grid.partners(other.grid)
        place = self._partners[id(other)][number]
        if place is None:
            raise ValueError("No slice at this place")
        return other.slices.read(place).hu


def _refuse_constant(hu: np.ndarray) -> None:
    if hu.min() == hu.max():
        raise ValueError(f"The image is constant, {float(hu.flat[0]):g} HU")


def _refuse_small(hu: np.ndarray) -> None:
    if min(hu.shape) < SMOOTHING + 2:
        raise ValueError(
            f"Expected slices with sides of at least {SMOOTHING + 2} pixels, but got {hu.shape[0]} x {hu.shape[1]}"
        )


def measure_place(read: SlicePlace, keys: Sequence[str], windows: Mapping[str, Window], region: str) -> MeasuredSlice:
    """Compute every figure of every image at one place; each of ``keys`` gets a value or a reason.

    Args:
        read: the images at this place.
        keys: keys of the measures of slices.
        windows: windows by name.
        region: one of ``measures.REGIONS``.
    """
    if read.reference is None or read.padded is None or not read.images:
        judged = MeasuredSlice({}, {}, {})
    else:
        maps = {key: own["disagreement"] for key, own in read.maps.items() if "disagreement" in own}
        judged = measure_slice(
            read.reference, read.images,
            padded=read.padded, windows=windows, region=region, disagreement=maps, tissues=read.tissues,
        )  # fmt: skip
    for key, figures in judged.figures.items():
        lacking = {name for name in keys if name not in figures.values and name not in figures.missing}
        figures.missing |= {name: _why_none(name, key, read.no_labels) for name in lacking}
    for key, why in read.missing.items():
        judged.figures[key] = Figures({}, dict.fromkeys(keys, why))
    return judged


def _why_none(measure: str, method: str, no_labels: str) -> str:
    if measure.startswith(("bias_", "std_")):
        return no_labels or "not computed"
    if measure.startswith("leakage"):
        return "the input itself" if method == "input" else "no input at this place"
    return "no disagreement map" if measure == "disagreement" else "not computed"


def view_of(read: SlicePlace, label: str, patient: str, grid: SliceGrid, number: int) -> SliceView:
    """A slice for display, with images rounded to integer HU; it is slice ``number`` of the grid."""
    images = {REFERENCE: read.reference, **read.images}
    maps = {key: own for key, own in read.maps.items() if own}
    note = "; ".join(f"{key}: {why}" for key, why in read.missing.items())
    whole = {key: _whole(image) for key, image in images.items() if image is not None}
    return SliceView(label, patient, grid.pixel_mm, whole, maps, note, grid.sides, grid.position(number))


def _whole(hu: np.ndarray) -> np.ndarray:
    """(x, y) int16, HU rounded."""
    return np.rint(hu).clip(-32768, 32767).astype(np.int16)


def _in_order(
    work: Callable[[tuple[int, int]], tuple[SlicePlace, MeasuredSlice]], jobs: Sequence[tuple[int, int]]
) -> Iterator[tuple[SlicePlace, MeasuredSlice]]:
    """Yield the results of ``work`` in the order of the jobs; only a few slices are held at a time."""
    workers = max(1, min(_MOST_WORKERS, os.cpu_count() or 1, len(jobs)))
    waiting: deque[Future[tuple[SlicePlace, MeasuredSlice]]] = deque()
    with _one_torch_thread(), ThreadPoolExecutor(workers, "judge") as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread: slices are evaluated in parallel, and threads within each of them would only slow this down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
