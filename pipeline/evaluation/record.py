"""The record of an evaluation, from which tables, CSV and the report are made. Data only; nothing is computed here.

All images are slices (columns, rows), HU: in a picture, axis 0 runs to the right and axis 1 downwards. Apart from the user's own
file names, nothing in a record identifies a patient: patients are "patient 1", "patient 2", ... in the order of the reference's
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Table

REFERENCE, INPUT = "reference", "input"
"""Keys of the methods that are not candidates; candidates have the keys "candidate1", "candidate2", ..."""
MAPS = ("noise", "content", "disagreement")
"""Maps that a candidate may have besides its result: N(y), C(y) and |C(y) - (y - N(y))|, HU."""
PAGE = "report.html"
"""File name of the report of an evaluation."""


@dataclass(frozen=True)
class Method:
    """The method that made an image.

    Attributes:
        key: key that rows, slices and curves refer to: "reference", "input" or "candidate1", ...
        name: unique name for display: the user's file or folder name.
        role: "candidate" is evaluated; "input" is evaluated as well, as the baseline.
        description: a sentence on where it comes from; may be empty.
    """

    key: str
    name: str
    role: Literal["reference", "input", "candidate"]
    description: str = ""


@dataclass(frozen=True)
class Measure:
    """A figure of merit: the name of its column, and what is needed to interpret it.

    Attributes:
        key: key that rows refer to, for example "psnr_chest".
        title: for example "PSNR".
        unit: "dB", "HU", "1/mm", "HU^2 mm^2"; empty for dimensionless figures.
        conditions: data range or window and constants, for example "window chest -600/1500 HU, range 1500 HU"; never empty.
        better: which direction is better; "zero" for biases and distances with a sign; empty if neither is.
        digits: decimals for display.
        description: a sentence for readers who do not know the figure.
        group: heading under which it is shown: "image", "tissue", "noise", "structure", "task", "branches".
    """

    key: str
    title: str
    unit: str
    conditions: str
    better: Literal["higher", "lower", "zero", ""]
    digits: int
    description: str
    group: str

    @property
    def header(self) -> str:
        """Title, unit and conditions in one line, for the header of a column.

        >>> Measure("rmse_full", "RMSE", "HU", "body", "lower", 2, "", "image").header
        'RMSE HU (body)'
        """
        return f"{self.title} {self.unit}".strip() + f" ({self.conditions})"


@dataclass(frozen=True)
class KeyFigure:
    """A key figure of an evaluation.

    Attributes:
        title: for example "Gain".
        value: value in ``unit``.
        unit: "dB", "HU", "%"; empty for a dimensionless figure.
        digits: decimals for display.
        low: lower end of its range; None if there is only one value.
        high: upper end of its range.
        range_of: what the range is, for example "95 % interval over 12 patients".
        conditions: window, or where it was measured; never empty.
        signed: whether positive values are shown with a plus sign.
    """

    title: str
    value: float
    unit: str
    digits: int
    low: float | None
    high: float | None
    range_of: str
    conditions: str
    signed: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result of an evaluation, shown first on its page.

    Attributes:
        judged: what was evaluated: method, reference, scans.
        sentence: the result in one sentence, with its figures.
        figures: those figures, each with its range and window.
        method: key of the method that the sentence is about; empty if that method has no pictures.
    """

    judged: str
    sentence: str
    figures: Sequence[KeyFigure] = ()
    method: str = ""


@dataclass(frozen=True)
class Mark:
    """A place in a slice that the page can jump to.

    Attributes:
        label: what is there, for example "14 HU, 3 mm".
        column: column of its centre, pixels.
        row: row of its centre, pixels.
        diameter_mm: its diameter.
    """

    label: str
    column: float
    row: float
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class SliceView:
    """A slice for display.

    Attributes:
        label: for example "scan.nii.gz, slice 12".
        patient: "patient 1", ...
        spacing_mm: pixel size along columns (axis 0) and rows (axis 1), mm.
        images: images (columns, rows), float32 or int16, HU, by method key; the reference always, others if they exist.
        maps: maps of the same shape, HU, by method key and then by name out of :data:`MAPS`.
        note: what is special about the slice; may be empty.
        sides: letters of the patient's sides at the left, top, right and bottom, for example ("R", "A", "L", "P"); empty
            if unknown.
        position: position of the slice in the patient, for example "S 12.5 mm"; empty if unknown.
        marks: places to jump to.
    """

    label: str
    patient: str
    spacing_mm: tuple[float, float]
    images: Mapping[str, np.ndarray]
    maps: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    note: str = ""
    sides: tuple[str, str, str, str] = ("", "", "", "")
    position: str = ""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True)
class SliceRow:
    """The figures of one method on one slice.

    Attributes:
        method: key of the method.
        scan: file name of the reference scan.
        slice: number within the scan, from 0.
        patient: "patient 1", ...
        values: finite values by measure key.
        missing: reasons why figures were not computed, by measure key; a key is in ``values`` or here, never in both.
    """

    method: str
    scan: str
    slice: int
    patient: str
    values: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PatientRow:
    """Means of one method over one patient's slices.

    Attributes:
        method: key of the method.
        patient: "patient 1", ...
        slices: number of the patient's slices.
        values: mean over the slices that have the figure, by measure key.
        counts: number of slices that have the figure, by measure key.
        missing: reasons why no slice has the figure, by measure key.
    """

    method: str
    patient: str
    slices: int
    values: Mapping[str, float]
    counts: Mapping[str, int]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SummaryRow:
    """One figure of one method over all data.

    Attributes:
        method: key of the method.
        measure: key of the measure.
        mean: mean of the patients' means, or of the slices if ``over`` says so; None if not computed.
        low: lower end of the 95 % bootstrap interval; None if there is none.
        high: upper end of the interval.
        count: number of patients or slices in the mean.
        over: what was averaged and resampled: "patients", or "slices" if there are few patients.
        note: why the figure was not computed, or on how many slices it is missing; may be empty.
    """

    method: str
    measure: str
    mean: float | None
    low: float | None
    high: float | None
    count: int
    over: Literal["patients", "slices"]
    note: str = ""


@dataclass(frozen=True)
class ComparisonRow:
    """Paired difference ``first - second`` of one figure, over the patients or slices that both methods have.

    Attributes:
        first: key of the first method.
        second: key of the second method.
        measure: key of the measure.
        difference: mean of the paired differences; None if there are no pairs.
        low: lower end of its 95 % bootstrap interval.
        high: upper end of the interval.
        count: number of pairs.
        over: "patients" or "slices".
        share_better: fraction of pairs in which ``first`` is better, 0 to 1; None if neither direction is better.
        note: a remark; may be empty.
    """

    first: str
    second: str
    measure: str
    difference: float | None
    low: float | None
    high: float | None
    count: int
    over: Literal["patients", "slices"]
    share_better: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Provenance:
    """What is needed to repeat an evaluation.

    Attributes:
        command: the command line as typed, or the call.
        created: date and time, ISO 8601 with time zone.
        versions: versions by package or program; "ct-cncl" includes its git revision if there is one.
        data_range: data range in words, for example "full 4096 HU; windows chest -600/1500 HU, abdomen 50/400 HU".
        seeds: seeds by purpose, for example "bootstrap".
        constants: constants in words, by metric: windows of SSIM, constants of VIF, tissue classes, patches.
        files: a file or folder by method name, and its checksum if known; with the user's own names only.
    """

    command: str
    created: str
    versions: Mapping[str, str]
    data_range: str
    seeds: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All results of one evaluation, by ``ct-cncl evaluate``, ``ct-cncl qa``, or at the end of ``train`` and ``ablate``.

    Attributes:
        title: title of the page.
        kind: "evaluation" (files against a reference), "qa" (phantoms) or "training".
        summary: the result in a few plain sentences.
        methods: the reference, the input if there is one, and the candidates in the order in which they were named.
        measures: all measures in the order of columns.
        slices: slices for display, at most about 20.
        slice_rows: every method but the reference on every slice; empty for a phantom test.
        patient_rows: the same by patient.
        summaries: every measure of every method; of the reference only its own figures (noise, CNR, spectrum).
        comparisons: comparisons of candidates with the input and with each other.
        charts: noise power spectra, error per tissue, calibration, TTF, detectability, curves over training.
        tables: further tables.
        provenance: what is needed to repeat the evaluation.
        warnings: what a reader must know before trusting a figure; shown at the top.
        windows: windows in which the figures were computed, by name, (centre, width) in HU.
        verdict: the result in one sentence; None if there is none.
    """

    title: str
    kind: Literal["evaluation", "qa", "training"]
    summary: Sequence[str]
    methods: Sequence[Method]
    measures: Sequence[Measure]
    slices: Sequence[SliceView]
    slice_rows: Sequence[SliceRow]
    patient_rows: Sequence[PatientRow]
    summaries: Sequence[SummaryRow]
    comparisons: Sequence[ComparisonRow]
    charts: Sequence[Chart]
    tables: Sequence[Table]
    provenance: Provenance
    warnings: Sequence[str] = ()
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    verdict: Verdict | None = None

    def method(self, key: str) -> Method:
        """The method with this key.

        Raises:
            KeyError: there is no such method.
        """
        return {one.key: one for one in self.methods}[key]

    def measure(self, key: str) -> Measure:
        """The measure with this key.

        Raises:
            KeyError: there is no such measure.
        """
        return {one.key: one for one in self.measures}[key]
