"""Charts, tables and sentences of the phantom test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table, Value
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE
from ct_cncl.pipeline.metrics.nps_distance import nps_distance
from ct_cncl.pipeline.metrics.observer import Detectability
from ct_cncl.pipeline.metrics.resolution import TaskTransfer
from ct_cncl.pipeline.qa.measure import DoseResult
from ct_cncl.pipeline.qa.phantoms import CONTRASTS_HU, LESIONS, Scanner
from ct_cncl.transforms.anatomy.regions import NoisePower

REFERENCE_DOSE = 0.25
"""Quarter dose: charts of a single dose show the dose closest to it."""
INTERVAL = 1.96
_LOWEST = 2


@dataclass(frozen=True, eq=False)
class QAResults:
    """All measurements.

    Attributes:
        scanner: the scanner that made the scans.
        names: names of the denoisers by method key.
        doses: dose fractions, highest first.
        measured: results by method key (including "input") and dose.
        clean: task transfer of the reconstruction without noise, by contrast; a text if it could not be measured.
    """

    scanner: Scanner
    names: Mapping[str, str]
    doses: Sequence[float]
    measured: Mapping[tuple[str, float], DoseResult]
    clean: Mapping[float, TaskTransfer | str]

    @property
    def methods(self) -> dict[str, str]:
        """Names by key, the input first."""
        return {INPUT: "reconstruction", **self.names}

    @property
    def shown_dose(self) -> float:
        """The dose of charts that show a single dose."""
        return shown_dose(self.doses)


def shown_dose(doses: Sequence[float]) -> float:
    """The dose of charts that show a single dose: the one closest to :data:`REFERENCE_DOSE`."""
    return min(doses, key=lambda dose: abs(math.log(dose / REFERENCE_DOSE)))


def charts(found: QAResults) -> list[Chart]:
    """Charts of noise by dose, noise power, task transfer by contrast, linearity and detectability by dose."""
    return [
        _noise_over_dose(found),
        _noise_power(found),
        *(_transfer(found, contrast) for contrast in CONTRASTS_HU if isinstance(found.clean[contrast], TaskTransfer)),
        _linearity(found),
        *(_detectability(found, kind) for kind in LESIONS),
    ]


def _noise_over_dose(found: QAResults) -> Chart:
    curves = []
    for key, name in found.methods.items():
        levels = [found.measured[key, dose].noise for dose in found.doses]
        values = np.array([0.0 if level is None else level.level_hu for level in levels])
        curves.append(Curve(key, name, np.array(found.doses), values, dashed=key == INPUT))
    note = "Standard deviation of water's noise, from differences of slices."
    return Chart("noise", "Noise over dose", "dose fraction", "noise, HU", curves, note=note)


def _noise_power(found: QAResults) -> Chart:
    dose = found.shown_dose
    curves = []
    for key, name in found.methods.items():
        power = found.measured[key, dose].power
        curves.append(Curve(key, name, power.frequency[_LOWEST:], power.radial[_LOWEST:], dashed=key == INPUT))
    note = f"Water at dose {dose:g}; differences of slices, so that only noise counts."
    title = f"Noise power spectrum, dose {dose:g}"
    return Chart("nps", title, "spatial frequency, cycles/mm", "NPS, HU^2 mm^2", curves, note=note)


def _transfer(found: QAResults, contrast: float) -> Chart:
    dose, clean = found.shown_dose, found.clean[contrast]
    curves = []
    if isinstance(clean, TaskTransfer):
        curves.append(Curve(REFERENCE, "no noise", clean.frequency, clean.ttf, dashed=True))
    for key, name in found.methods.items():
        own = found.measured[key, dose].transfer[contrast]
        if isinstance(own, TaskTransfer):
            curves.append(Curve(key, name, own.frequency, own.ttf))
    note = f"Edge of a disc of {contrast:+g} HU in water at dose {dose:g}, mean over the slices. Below the dashed line: blurred."
    title = f"Task transfer function, {contrast:+g} HU"
    return Chart(f"ttf_{contrast:+g}", title, "spatial frequency, cycles/mm", "TTF", curves, note=note)


def _linearity(found: QAResults) -> Chart:
    dose, curves = found.shown_dose, []
    nominal = np.array(CONTRASTS_HU)
    for key, name in found.methods.items():
        own = found.measured[key, dose].disc_hu
        curves.append(Curve(key, name, nominal, np.array([own[c] for c in CONTRASTS_HU]) - nominal))
    ends = nominal[[0, -1]]
    curves.append(Curve("", "exact", ends, 0 * ends, dashed=True))
    note = f"Mean of each disc less its HU by construction, dose {dose:g}."
    return Chart("linearity", "HU linearity", "disc, HU", "measured - nominal, HU", curves, note=note)


def _detectability(found: QAResults, kind: tuple[float, float]) -> Chart:
    curves = []
    for key, name in found.methods.items():
        points = [(dose, found.measured[key, dose].detectability[kind]) for dose in found.doses]
        told = [(dose, one) for dose, one in points if isinstance(one, Detectability)]
        dose, value, error = (
            np.array([float(part) for part in parts])
            for parts in (
                [dose for dose, _ in told], [one.d_prime for _, one in told], [INTERVAL * one.error for _, one in told],
            )
        )  # fmt: skip
        if told:
            ends = np.maximum(value - error, 0), value + error
            curves.append(Curve(key, name, dose, value, *ends, dashed=key == INPUT))
    diameter, contrast = kind
    note = "Channelised Hotelling observer; 95 % intervals by the jackknife. No denoiser can add what the scan does not hold."
    title = f"Detectability of {diameter:g} mm, {contrast:g} HU"
    return Chart(f"detectability_{diameter:g}mm", title, "dose fraction", "d'", curves, note=note)


def tables(found: QAResults) -> list[Table]:
    """Tables of all figures by method and dose."""
    return [_noise_table(found), _transfer_table(found), _linearity_table(found), _detectability_table(found)]


def _each(found: QAResults) -> list[tuple[str, str, float, DoseResult]]:
    return [(key, name, dose, found.measured[key, dose]) for key, name in found.methods.items() for dose in found.doses]


def _noise_table(found: QAResults) -> Table:
    full = found.measured[INPUT, found.doses[0]].power
    rows: list[list[Value]] = []
    for _, name, dose, own in _each(found):
        before, noise = found.measured[INPUT, dose].noise, own.noise
        figures: list[Value] = [None] * 4
        if noise is not None and before is not None:
            share = 100 * noise.level_hu / before.level_hu
            figures = [noise.level_hu, share, noise.peak_per_mm, noise.mean_per_mm]
        shape = nps_distance(_of_unit_power(own.power), _of_unit_power(full)) if noise is not None else None
        rows.append([name, dose, *figures, shape, own.water_hu, own.uniformity_hu])
    columns = [
        "method", "dose", "noise HU", "noise % of the reconstruction's", "NPS peak 1/mm", "NPS mean frequency 1/mm",
        "distance of NPS shape", "water HU", "uniformity HU",
    ]  # fmt: skip
    note = (
        f"Distance of NPS shape: to the reconstruction at dose {found.doses[0]:g}, both of unit power: 0 the same texture. Uniformity: "
        "largest difference of four regions near the rim from the middle."
    )
    return Table("noise", "Noise and uniformity in water", columns, rows, (0, 2, 2, 0, 3, 3, 3, 2, 2), note, names=2)


def _of_unit_power(power: NoisePower) -> NoisePower:
    total = float((power.radial * power.frequency).sum())
    return power._replace(spectrum=power.spectrum / total, radial=power.radial / total)


def _transfer_table(found: QAResults) -> Table:
    rows: list[list[Value]] = []
    for contrast in CONTRASTS_HU:
        clean = found.clean[contrast]
        half = clean.half_per_mm if isinstance(clean, TaskTransfer) else math.nan
        tenth = clean.tenth_per_mm if isinstance(clean, TaskTransfer) else math.nan
        rows.append([contrast, "no noise", None, _finite(half), _finite(tenth), 100.0, ""])
        for _, name, dose, own in _each(found):
            one = own.transfer[contrast]
            if isinstance(one, str):
                rows.append([contrast, name, dose, None, None, None, f"not computed: {one}"])
                continue
            share = _finite(100 * one.half_per_mm / half)
            rows.append([contrast, name, dose, _finite(one.half_per_mm), _finite(one.tenth_per_mm), share, ""])
    columns = ["disc HU", "method", "dose", "TTF 50 % 1/mm", "TTF 10 % 1/mm", "50 % of that without noise, %", "note"]
    note = "From the mean over all slices. A denoiser is not linear: read it by contrast and dose. Noise makes low contrasts uncertain."
    return Table("transfer", "Task transfer", columns, rows, (0, 0, 2, 3, 3, 0, 0), note, names=3)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _linearity_table(found: QAResults) -> Table:
    nominal = np.array(CONTRASTS_HU)
    rows: list[list[Value]] = []
    for _, name, dose, own in _each(found):
        values = np.array([own.disc_hu[contrast] for contrast in CONTRASTS_HU])
        slope, offset = np.polyfit(nominal, values, 1)
        rest = values - (slope * nominal + offset)
        spread = float(((values - values.mean()) ** 2).sum())
        fit = 1 - float(rest @ rest) / spread if spread > 0 else None
        worst = int(np.argmax(np.abs(values - nominal)))
        rows.append([name, dose, *values.tolist(), float(slope), float(offset), fit, float((values - nominal)[worst])])
    columns = [
        "method",
        "dose",
        *(f"disc {c:+g} HU" for c in CONTRASTS_HU),
        "slope",
        "offset HU",
        "R^2",
        "largest deviation HU",
    ]
    digits = (0, 2, *[1] * len(CONTRASTS_HU), 4, 2, 6, 2)
    return Table("linearity", "HU linearity", columns, rows, digits, "Mean over 0.6 of each disc's radius.", names=2)


def _detectability_table(found: QAResults) -> Table:
    rows: list[list[Value]] = []
    for diameter, contrast in LESIONS:
        for _, name, dose, own in _each(found):
            one = own.detectability[diameter, contrast]
            if isinstance(one, str):
                rows.append([diameter, contrast, name, dose, None, None, None, f"not computed: {one}"])
            else:
                rows.append([diameter, contrast, name, dose, one.d_prime, one.error, one.area, ""])
    columns = ["diameter mm", "contrast HU", "method", "dose", "d'", "standard error", "area under ROC", "note"]
    note = "Channelised Hotelling observer, d' free of the bias of few samples; standard error by the jackknife."
    return Table("detectability", "Low-contrast detectability", columns, rows, (0, 0, 0, 2, 2, 2, 3, 0), note, names=4)


def sentences(found: QAResults) -> list[str]:
    """One sentence on each denoiser at the shown dose."""
    return [_of_one(found, key, name) for key, name in found.names.items()]


def _of_one(found: QAResults, key: str, name: str) -> str:
    dose = found.shown_dose
    own, before = found.measured[key, dose], found.measured[INPUT, dose]
    parts = []
    if own.noise is not None and before.noise is not None:
        parts.append(
            f"noise {own.noise.level_hu:.1f} HU of {before.noise.level_hu:.1f}, its mean frequency {own.noise.mean_per_mm:.2f} of "
            f"{before.noise.mean_per_mm:.2f}/mm"
        )
    transfer, clean = own.transfer[120.0], found.clean[120.0]
    if isinstance(transfer, TaskTransfer) and isinstance(clean, TaskTransfer):
        parts.append(f"50 % of the 120 HU edge's transfer at {transfer.half_per_mm:.2f} of {clean.half_per_mm:.2f}/mm")
    worst = max(CONTRASTS_HU, key=lambda contrast: abs(own.disc_hu[contrast] - contrast))
    parts.append(f"largest HU deviation {own.disc_hu[worst] - worst:+.1f} in the {worst:+g} HU disc")
    diameter, contrast = LESIONS[1]
    now, then = own.detectability[LESIONS[1]], before.detectability[LESIONS[1]]
    if isinstance(now, Detectability) and isinstance(then, Detectability):
        parts.append(f"d' {now.d_prime:.1f} of {then.d_prime:.1f} for {diameter:g} mm, {contrast:g} HU")
    return f"{name} at dose {dose:g}: {'; '.join(parts)}."
