"""The record of an evaluation, from which tables, CSV and the report are made. Data only; nothing is computed here.

All images are slices (columns, rows): axis 0 to the right and axis 1 downwards in a picture, HU. Nothing in a record names a
patient beyond the user's own file names: patients are "patient 1", "patient 2", ... in the order of the reference's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Table

REFERENCE, INPUT = "reference", "input"
"""Keys of the methods that are not judged for themselves; candidates have the keys "candidate1", "candidate2", ..."""
MAPS = ("noise", "content", "disagreement")
"""What a candidate may bring beside its result: N(y), C(y) and |C(y) - (y - N(y))|, HU."""
PAGE = "report.html"
"""File name of the report of an evaluation."""


@dataclass(frozen=True)
class Method:
    """Who made an image.

    Attributes:
        key: by which rows, slices and curves refer to it: "reference", "input" or "candidate1", ...
        name: as people read it, unique: the user's file or folder name.
        role: "candidate" is judged; "input" is judged beside them as the line to beat.
        description: a sentence on where it comes from; may be empty.
    """

    key: str
    name: str
    role: Literal["reference", "input", "candidate"]
    description: str = ""


@dataclass(frozen=True)
class Measure:
    """A figure of merit: what its column is called and what must be known to read it.

    Attributes:
        key: by which rows refer to it, for example "psnr_chest".
        title: for example "PSNR".
        unit: "dB", "HU", "1/mm", "HU^2 mm^2"; empty for figures without unit.
        conditions: data range or window and constants, for example "window chest -600/1500 HU, range 1500 HU"; never empty.
        better: which way is better; "zero" for biases and distances that have a sign; empty where neither is.
        digits: decimals that people read.
        description: a sentence for people who do not know it.
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
        """Title, unit and conditions in one line, as a column of a table must say them.

        >>> Measure("rmse_full", "RMSE", "HU", "body", "lower", 2, "", "image").header
        'RMSE HU (body)'
        """
        return f"{self.title} {self.unit}".strip() + f" ({self.conditions})"


@dataclass(frozen=True)
class KeyFigure:
    """A figure that answers the question of an evaluation.

    Attributes:
        title: for example "Gain".
        value: in ``unit``.
        unit: "dB", "HU", "%"; empty for a figure without unit.
        digits: decimals that people read.
        low: lower end of its range; None where there is one value alone.
        high: upper end.
        range_of: what the range is, for example "95 % interval over 12 patients".
        conditions: window, or where it was measured; never empty.
        signed: whether a plus belongs before it.
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
    """The answer of an evaluation: what stands first on its page.

    Attributes:
        judged: what was judged: method, reference, scans.
        sentence: the result in one sentence, with its figures.
        figures: those figures, each with its range and window.
        method: key of the method that the sentence is about; empty where it is about none of the pictures.
    """

    judged: str
    sentence: str
    figures: Sequence[KeyFigure] = ()
    method: str = ""


@dataclass(frozen=True)
class Mark:
    """Something in a slice to jump to.

    Attributes:
        label: what it is, for example "14 HU, 3 mm".
        column: of its middle, pixels.
        row: of its middle, pixels.
        diameter_mm: its size.
    """

    label: str
    column: float
    row: float
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class SliceView:
    """A slice to be looked at.

    Attributes:
        label: for example "scan.nii.gz, slice 12".
        patient: "patient 1", ...
        spacing_mm: of pixels along columns (axis 0) and rows (axis 1), mm.
        images: by method key, (columns, rows) float32 or int16, HU; the reference always, others where they exist.
        maps: by method key, then by name out of :data:`MAPS`, the same shape, HU.
        note: what is special about it; may be empty.
        sides: letters of the patient's sides at the left, top, right and bottom, for example ("R", "A", "L", "P"); empty
            letters where nothing says.
        position: of the slice in the patient, for example "S 12.5 mm"; empty where nothing says.
        marks: to jump to.
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
        method: key.
        scan: the reference's own file name.
        slice: number within the scan, from 0.
        patient: "patient 1", ...
        values: by measure key, finite.
        missing: by measure key, why a figure was not computed; a key is in ``values`` or here, never in both.
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
        method: key.
        patient: "patient 1", ...
        slices: of the patient.
        values: by measure key, mean over the slices that have the figure.
        counts: by measure key, the number of slices that have it; 0 where none has.
        missing: by measure key, why no slice has it.
    """

    method: str
    patient: str
    slices: int
    values: Mapping[str, float]
    counts: Mapping[str, int]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SummaryRow:
    """One figure of one method over everything.

    Attributes:
        method: key.
        measure: key.
        mean: over patients of the patients' means, or over slices where ``over`` says so; None where not computed.
        low: lower end of the 95 % bootstrap interval; None where there is none.
        high: its upper end.
        count: how many patients or slices the mean is over.
        over: what was averaged and resampled: "patients", or "slices" where patients are few.
        note: why it was not computed, or of how many slices the figure is missing; may be empty.
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
    """Paired difference ``first - second`` of one figure, over what both have.

    Attributes:
        first: method key.
        second: method key.
        measure: key.
        difference: mean of the paired differences; None where there is nothing to pair.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        count: pairs.
        over: "patients" or "slices".
        share_better: of pairs in which ``first`` is better, 0 to 1; None where neither way is better.
        note: may be empty.
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
    """How to do it again.

    Attributes:
        command: the command line as typed, or the call.
        created: date and time, ISO 8601 with time zone.
        versions: by package or program, "ct-cncl" with its git revision where there is one.
        data_range: in words, for example "full 4096 HU; windows chest -600/1500 HU, abdomen 50/400 HU".
        seeds: by what they are for, for example "bootstrap".
        constants: by metric, in words: windows of SSIM, constants of VIF, tissue classes, patches.
        files: by method name, a file or folder and its checksum where known; the user's own names only.
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
    """Everything one evaluation found: ``ct-cncl evaluate``, ``ct-cncl qa`` and the end of ``train`` and ``ablate``.

    Attributes:
        title: of the page.
        kind: "evaluation" (files against a reference), "qa" (phantoms) or "training".
        summary: the result in a few plain sentences, first thing on the page.
        methods: reference, input where there is one, candidates in the order in which they were named.
        measures: in the order of columns.
        slices: to be looked at, at most about 20.
        slice_rows: every method but the reference on every slice; empty for a phantom test.
        patient_rows: likewise by patient.
        summaries: of the reference what it has by itself (noise, CNR, spectrum), of every other method every measure.
        comparisons: of candidates with the input and with each other.
        charts: noise power spectra, error per tissue, calibration, TTF, detectability, curves over training.
        tables: further tables.
        provenance: how to do it again.
        warnings: what a reader must know before trusting a figure; shown at the top.
        windows: those the figures were computed in, by name, (centre, width) HU.
        verdict: the answer; None where there is none.
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
            KeyError: there is none.
        """
        return {one.key: one for one in self.methods}[key]

    def measure(self, key: str) -> Measure:
        """The measure with this key.

        Raises:
            KeyError: there is none.
        """
        return {one.key: one for one in self.measures}[key]
