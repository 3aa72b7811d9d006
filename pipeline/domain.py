"""What a network was trained on, and what of a scan lies outside of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import nibabel as nib
import numpy as np

from ct_cncl.transforms.regions import noise_level, padding_mask
from ct_cncl.transforms.series import Acquisition

SAMPLED = 4
"""Slices of a scan that are looked at."""
_RATIO = 1.25
"""Noise and spacing may lie so many times outside the range of the training data before it is worth a warning."""
_HU_MARGIN = 200.0
_RANGES = ("noise_hu", "pixel_mm", "slice_mm", "hu")


def measure(slices: Sequence[np.ndarray], spacing: Sequence[float], acquisition: Acquisition | None) -> dict[str, Any]:
    """What is compared: noise level, spacing, HU range, body part, contrast.

    Args:
        slices: some slices (x, y) of a scan, HU.
        spacing: mm along columns, rows and slices.
        acquisition: what the headers say.

    Returns:
        "noise_hu" (std in soft tissue), "pixel_mm", "slice_mm", "hu" (0.1 % and 99.9 % quantiles outside padding),
        "body_part", "contrast"; what is unknown is left out.

    >>> measure([np.full((32, 32), 40.0)], (0.7, 0.7, 5), None)["pixel_mm"]
    [0.7, 0.7]
    """
    found: dict[str, Any] = {"pixel_mm": sorted(map(float, spacing[:2])), "slice_mm": [float(spacing[2])] * 2}
    values = np.concatenate([hu[~padding_mask(hu)] for hu in slices])
    if values.size:
        found["hu"] = [float(value) for value in np.quantile(values, (0.001, 0.999))]
    if min(slices[0].shape) >= 9:
        with suppress(ValueError):  # no soft tissue in these slices
            found["noise_hu"] = [noise_level(np.stack(slices, axis=-1))] * 2
    if acquisition is not None and acquisition.body_part:
        found["body_part"] = [acquisition.body_part]
    if acquisition is not None and acquisition.contrast is not None:
        found["contrast"] = [acquisition.contrast]
    return found


def sampled(count: int) -> list[int]:
    """Numbers of the slices that stand for a scan of ``count``: evenly spread, the ends left out where there are more.

    >>> sampled(40)
    [5, 15, 25, 35]
    """
    number = min(SAMPLED, count)
    return [int((2 * k + 1) * count // (2 * number)) for k in range(number)]


def together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The domain of several scans: ranges from the least to the greatest, every body part and contrast.

    >>> together([{"noise_hu": [10, 10]}, {"noise_hu": [14, 14], "contrast": [True]}])
    {'noise_hu': [10, 14], 'contrast': [True]}
    """
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in _RANGES:
                low, high = result.get(key, value)
                result[key] = [min(low, value[0]), max(high, value[1])]
            else:
                result[key] = sorted({*result.get(key, ()), *value})
    return result


def outside(scan: Mapping[str, Any], trained_on: Mapping[str, Any]) -> list[str]:
    """Warnings, one line each, for what of a scan lies outside of what the weights were trained on; unknown things pass.

    Args:
        scan: from :func:`measure`.
        trained_on: from :func:`together`, as stored with the weights.

    >>> outside({"noise_hu": [60.0, 60.0]}, {"noise_hu": [10.0, 20.0]})
    ['noise of 60 HU lies outside the 10 to 20 HU of the training data']
    """
    names = {"noise_hu": ("noise of", "HU"), "pixel_mm": ("pixels of", "mm"), "slice_mm": ("slices every", "mm")}
    warnings = []
    for key, (what, unit) in names.items():
        if key in scan and key in trained_on:
            (least, most), (low, high) = scan[key], trained_on[key]
            if least < low / _RATIO or most > high * _RATIO:
                worst = least if least < low / _RATIO else most
                warnings.append(
                    f"{what} {worst:.3g} {unit} lies outside the {low:.3g} to {high:.3g} {unit} of the training data"
                )
    if "hu" in scan and "hu" in trained_on:
        (least, most), (low, high) = scan["hu"], trained_on["hu"]
        if least < low - _HU_MARGIN or most > high + _HU_MARGIN:
            warnings.append(
                f"values from {least:.0f} to {most:.0f} HU exceed the {low:.0f} to {high:.0f} HU of the training data"
            )
    for key, what in (("body_part", "body part"), ("contrast", "contrast")):
        new = [value for value in scan.get(key, ()) if trained_on.get(key) and value not in trained_on[key]]
        if new:
            known = ", ".join(_word(value) for value in trained_on[key])
            warnings.append(f"{what} {', '.join(map(_word, new))} is not in the training data ({known})")
    return warnings


def training_domain(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The domain of a prepared data set, from its low-dose volumes and what the datalist says of their acquisition.

    Args:
        entries: of the training split, with absolute paths.
    """
    return together(_entry_domain(entry) for entry in entries)


def _entry_domain(entry: Mapping[str, Any]) -> dict[str, Any]:
    image: Any = nib.load(entry["image"])
    slices = [np.asarray(image.dataobj[..., z], dtype=np.float32) for z in sampled(image.shape[2])]
    found = measure(slices, [float(size) for size in image.header.get_zooms()[:3]], None)
    stated = entry.get("acquisition") or {}
    for key in ("body_part", "contrast"):
        if stated.get(key) not in (None, ""):
            found[key] = [stated[key]]
    return found


def _word(value: Any) -> str:
    return {True: "given", False: "none"}.get(value, str(value))
