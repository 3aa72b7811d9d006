"""The figures of an evaluation: their names, units and conditions, in the order of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ct_cncl.pipeline.evaluation.record import Measure
from ct_cncl.pipeline.metrics.nps_distance import PATCH
from ct_cncl.pipeline.metrics.tissue import TISSUE_HU
from ct_cncl.transforms.common.hu import WINDOWS, Window

REGIONS = {
    "scan": "all pixels that the scanner measured",
    "body": "pixels of the body",
    "all": "all pixels, padding included",
}
"""Pixels over which image figures are computed; without padding, "scan" is the whole slice, as usual in the literature."""
_BIAS = "Bias, "
NOISE_KEYS = ("nps_distance", "nps_peak", "nps_mean")
"""Figures per patient, not per slice, since a spectrum needs many patches."""


def tissue_key(tissue: str) -> str:
    """Name of a tissue as part of a key.

    >>> tissue_key("soft tissue")
    'soft_tissue'
    """
    return tissue.replace(" ", "_")


def span_of(window: Window) -> float | Window:
    """The data range to pass to a metric: for the full range only its length, so that nothing is clipped.

    PSNR and SSIM of the full range are then those of training and ablation.
    """
    return window.width if window == WINDOWS["full"] else window


def measures(
    windows: Mapping[str, Window],
    *,
    region: str,
    with_input: bool,
    with_maps: bool,
    labels: Mapping[str, Sequence[int]] | None = None,
) -> list[Measure]:
    """All figures that will be computed.

    Args:
        windows: windows of PSNR, SSIM and VIF by name.
        region: one of :data:`REGIONS`.
        with_input: whether there is a low-dose input; without it, what was removed is unknown.
        with_maps: whether a candidate has disagreement maps.
        labels: label numbers of each tissue; None if tissues are taken from the reference's HU.
    """
    found = [one for name, window in windows.items() for one in _through(name, window, region)]
    found += [
        Measure("rmse", "RMSE", "HU", f"no window; {REGIONS[region]}", "lower", 2, "Root mean squared error.", "image"),
        Measure("mae", "MAE", "HU", f"no window; {REGIONS[region]}", "lower", 2, "Mean absolute error.", "image"),
    ]
    found += _tissues(labels)
    found += _noise()
    if with_input:
        found += _leakage()
    if with_maps:
        text = "Whether the branches disagree where the result is wrong: 1 always, 0 no relation."
        where = "Spearman's rank correlation of |C(y) - (y - N(y))| and |error| over the body"
        found.append(Measure("disagreement", "Disagreement predicts error", "", where, "higher", 3, text, "branches"))
    return found


def tissue_names(figures: Iterable[Measure]) -> list[str]:
    """Names of the tissues that have a bias, in order."""
    return [one.title.removeprefix(_BIAS) for one in figures if one.key.startswith("bias_")]


def _tissues(labels: Mapping[str, Sequence[int]] | None) -> list[Measure]:
    if labels is None:
        where = {name: f"smoothed reference {low:g} to {high:g} HU" for name, (low, high) in TISSUE_HU.items()}
    else:
        where = {name: f"labels {', '.join(map(str, numbers))}" for name, numbers in labels.items()}
    found = []
    for tissue, classed in where.items():
        key, conditions = tissue_key(tissue), f"{classed}, borders taken off"
        text = "Mean of image - reference: HU that a reader would misread."
        found.append(Measure(f"bias_{key}", f"{_BIAS}{tissue}", "HU", conditions, "zero", 2, text, "tissue"))
        text = "Standard deviation of image - reference."
        found.append(Measure(f"std_{key}", f"Spread, {tissue}", "HU", conditions, "lower", 2, text, "tissue"))
    return found


def _through(name: str, window: Window, region: str) -> list[Measure]:
    cut = f"window {name} {window}, " if isinstance(span_of(window), Window) else ""
    shown = f"{cut}range {window.width:g} HU{'' if cut else ', nothing cut off'}; {REGIONS[region]}"
    whole = f"{cut}{window.width:g} HU = 255 levels, sigma_n^2 = 2; whole slice"
    return [
        Measure(f"psnr_{name}", f"PSNR {name}", "dB", shown, "higher", 2, "Peak signal-to-noise ratio.", "image"),
        Measure(
            f"ssim_{name}", f"SSIM {name}", "", shown, "higher", 4, "Structural similarity, Gaussian 11 x 11.", "image"
        ),
        Measure(
            f"vif_{name}", f"VIF {name}", "", whole, "higher", 3, "Visual information fidelity, pixel domain.", "image"
        ),
    ]


def _noise() -> list[Measure]:
    where = f"calmest soft-tissue patches of the reference, {PATCH} x {PATCH} pixels"
    return [
        Measure("noise", "Noise", "HU", where, "", 2, "Standard deviation in uniform soft tissue.", "noise"),
        Measure(
            "nps_distance", "NPS distance to reference", "", f"{where}, pooled over a patient", "lower", 3,
            "Of radial spectra: integral of |NPS - NPS of the reference| over that of the reference; 0 the same texture, 1 no noise left.", "noise",
        ),
        Measure(
            "nps_peak", "NPS peak", "1/mm", f"{where}, pooled over a patient", "", 3,
            "Frequency with most noise; it falls where texture gets coarse.", "noise",
        ),
        Measure(
            "nps_mean", "NPS mean frequency", "1/mm", f"{where}, pooled over a patient", "", 3,
            "Mean frequency of the noise; it falls where texture gets coarse.", "noise",
        ),
        Measure(
            "cnr_fat", "CNR soft tissue to fat", "", f"means of both by the smoothed reference's HU; noise of {where}", "higher", 2,
            "Contrast over noise.", "noise",
        ),
    ]  # fmt: skip


def _leakage() -> list[Measure]:
    where = "correlation of input - image with the reference's edges (difference of Gaussians, 1.5 and 3 pixels)"
    return [
        Measure(
            "leakage", "Structure leakage", "", where, "zero", 3,
            "Anatomy in what was removed: above 0 smoothed away, below 0 sharpened.", "structure",
        ),
        Measure(
            "leakage_local", "Structure leakage, worst places", "", f"{where}; 95th percentile of windows of 32 pixels",
            "lower", 3, "The same where it is strongest; removed noise without structure has 0.05 to 0.25.", "structure",
        ),
    ]  # fmt: skip
