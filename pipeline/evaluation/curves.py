"""Charts of an evaluation (noise power, errors by tissue, calibration of the disagreement), and noise figures by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ct_cncl.pipeline.evaluation.all_slices import AllSlices
from ct_cncl.pipeline.evaluation.charts import Chart, Curve
from ct_cncl.pipeline.evaluation.measures import NOISE_KEYS, tissue_key
from ct_cncl.pipeline.evaluation.record import REFERENCE, Method, SummaryRow
from ct_cncl.pipeline.evaluation.slice_figures import short_reason
from ct_cncl.pipeline.metrics.disagreement import calibration_curve
from ct_cncl.pipeline.metrics.noise_power import noise_figures
from ct_cncl.pipeline.metrics.nps_distance import PATCH, nps_distance
from ct_cncl.transforms.anatomy.regions import NoisePower, noise_power_spectrum

Pixel = tuple[float, float]
_LOWEST = 2
"""First radial bin that is drawn; lower ones hold anatomy and what is left of it after a fitted plane is subtracted."""
PATCHES_NOTE = f"Calmest soft-tissue patches of the reference, {PATCH} x {PATCH} pixels, the same in all images"


def spectra(collected: AllSlices, pixels: Sequence[Pixel]) -> dict[tuple[str, int, str], NoisePower]:
    """Noise power by patient, scan and method, pooled over the scan's slices.

    Args:
        collected: results of all slices, with their patches.
        pixels: (dx, dy) of each scan, mm.
    """
    return {
        (patient, scan, method): noise_power_spectrum(np.concatenate(parts), pixels[scan])
        for (patient, scan, method), parts in collected.patches.items()
    }


def noise_of_patients(
    powers: Mapping[tuple[str, int, str], NoisePower],
    pixels: Sequence[Pixel],
    patients: Sequence[str],
    methods: Sequence[str],
) -> dict[tuple[str, str], tuple[dict[str, float], dict[str, str]]]:
    """NPS distance to the reference, peak and mean frequency by method and patient, as means over the patient's scans.

    Args:
        powers: spectra from :func:`spectra`.
        pixels: (dx, dy) of each scan, mm.
        patients: patient of each scan.
        methods: keys of the methods.

    Returns:
        Values, and the reasons for missing ones.
    """
    found: dict[tuple[str, str], tuple[dict[str, float], dict[str, str]]] = {}
    for method in methods:
        for patient in dict.fromkeys(patients):
            scans = [scan for scan, own in enumerate(patients) if own == patient and (patient, scan, method) in powers]
            rows: list[tuple[float, float, float]] = []
            why = "no uniform soft tissue"
            for scan in scans:
                power = powers[patient, scan, method]
                try:
                    figures = noise_figures(power, pixel_mm=pixels[scan])
                    distance = nps_distance(power, powers[patient, scan, REFERENCE])
                except ValueError as error:
                    why = short_reason(error)
                    continue
                rows.append((distance, figures.peak_per_mm, figures.mean_per_mm))
            if rows:
                means = np.mean(rows, axis=0)
                found[method, patient] = ({key: float(v) for key, v in zip(NOISE_KEYS, means)}, {})
            else:
                found[method, patient] = ({}, dict.fromkeys(NOISE_KEYS, why))
    return found


def noise_chart(powers: Mapping[tuple[str, int, str], NoisePower], methods: Sequence[Method]) -> list[Chart]:
    """Radial noise power of the reference and every method, averaged over scans at the frequencies that all of them have."""
    if not powers:
        return []
    highest = min(power.frequency[-1] for power in powers.values())
    widest = max((power.frequency for power in powers.values()), key=lambda frequency: frequency[1] - frequency[0])
    frequency = widest[(widest <= highest + 1e-9)][_LOWEST:]
    curves = []
    for method in methods:
        own = [power for (_, _, key), power in powers.items() if key == method.key]
        if own:
            radial = np.mean([np.interp(frequency, power.frequency, power.radial) for power in own], axis=0)
            curves.append(Curve(method.key, method.name, frequency, radial, dashed=method.key == REFERENCE))
    note = f"{PATCHES_NOTE}; a plane is taken off each, Hann window; mean over {len({k[:2] for k in powers})} scans."
    if max(power.frequency[-1] for power in powers.values()) > 1.05 * highest:
        note += f" Drawn up to {highest:.2f}/mm, where the coarsest of their pixels end."
    return [
        Chart(
            "nps", "Noise power spectrum", "spatial frequency, cycles/mm", "NPS, HU^2 mm^2", curves,
            note=f"{note} Frequencies below {frequency[0]:.2f}/mm hold anatomy and are not drawn.",
        )
    ]  # fmt: skip


def error_power_chart(collected: AllSlices, pixels: Sequence[Pixel], methods: Sequence[Method]) -> list[Chart]:
    """Power of the error, image - reference, by frequency: what a result lacks, and what it has in excess."""
    powers: dict[tuple[str, int, str], NoisePower] = {}
    for (patient, scan, key), parts in collected.patches.items():
        reference = collected.patches[patient, scan, REFERENCE]
        if key != REFERENCE and len(parts) == len(reference):
            errors = np.concatenate(parts).astype(np.float64) - np.concatenate(reference)
            powers[patient, scan, key] = noise_power_spectrum(errors, pixels[scan])
    charts = noise_chart(powers, [method for method in methods if method.key != REFERENCE])
    note = f"Spectrum of image - reference. {PATCHES_NOTE}. The reference's own noise is part of the error."
    return [
        Chart("nps_error", "Power of the error", chart.x_label, "power, HU^2 mm^2", chart.curves, note=note)
        for chart in charts
    ]


def tissue_charts(
    summaries: Sequence[SummaryRow], methods: Sequence[Method], names: Sequence[str], *, by: str
) -> list[Chart]:
    """Bias and standard deviation of HU errors by tissue, as bars with intervals.

    Args:
        summaries: all rows of the summary.
        methods: methods to show.
        names: names of the tissues.
        by: how tissues are identified, for the note.
    """
    charts = []
    rows = {(row.method, row.measure): row for row in summaries}
    for kind, title in (("bias", "Bias of HU by tissue"), ("std", "Standard deviation of the HU error by tissue")):
        curves = []
        for method in methods:
            own = [rows.get((method.key, f"{kind}_{tissue_key(name)}")) for name in names]
            if any(row is not None and row.mean is not None for row in own):
                mean, low, high = (
                    np.array([np.nan if row is None or getattr(row, end) is None else getattr(row, end) for row in own])
                    for end in ("mean", "low", "high")
                )
                ends = (low, high) if np.isfinite(low[np.isfinite(mean)]).all() else (None, None)
                curves.append(Curve(method.key, method.name, np.arange(len(names), dtype=float), mean, *ends))
        if curves:
            note = f"Classes by {by}, borders taken off; a class without a bar is not in these slices."
            charts.append(Chart(f"tissue_{kind}", title, "tissue", "HU", curves, categories=list(names), note=note))
    return charts


def calibration_chart(collected: AllSlices, methods: Sequence[Method]) -> list[Chart]:
    """Mean absolute error by disagreement of the branches, in ten groups of pixels."""
    curves, longest = [], 0.0
    for method in methods:
        if method.key in collected.calibration:
            disagreement, error = np.concatenate(collected.calibration[method.key], axis=1)
            try:
                found = calibration_curve(disagreement, error)
            except ValueError:
                continue
            curves.append(Curve(method.key, method.name, found.disagreement, found.error))
            longest = max(longest, float(found.disagreement[-1]))
    if not curves:
        return []
    ends = np.array([0.0, longest])
    curves.append(Curve("", "equal", ends, ends, dashed=True))
    note = (
        "Pixels of the body in ten groups by disagreement |C(y) - (y - N(y))|. A rising line: disagreement tells where the error is. "
        "The reference's own noise lifts the line as a whole."
    )
    return [
        Chart(
            "calibration", "Disagreement as a predictor of error", "mean disagreement, HU", "mean absolute error, HU",
            curves, note=note,
        )
    ]  # fmt: skip
