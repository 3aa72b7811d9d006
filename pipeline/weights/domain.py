"""The training data of a network, and which properties of a scan lie outside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.transforms.anatomy.noise_frequency import noise_frequency
from ct_cncl.transforms.anatomy.regions import noise_level, padding_mask
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.series import Acquisition

TRAINED_ON_FILE = "trained_on.json"
"""File next to a checkpoint that describes its training data."""
SAMPLED = 4
"""Number of slices of a scan that are measured."""
_MOST_SCANS = 40
_RATIO = 1.25
"""Factor by which noise level and spacing may lie outside the range of the training data without a warning."""
_HU_MARGIN = 200.0
_FREQUENCY_RATIO = 1.1
"""The same factor for the mean frequency of the noise, which varies less than its level."""
INPUT_DOSE = "input_dose"
"""Lowest and highest dose of the training inputs relative to their references; 0 if the references are noise-free."""
_RANGES = ("noise_hu", "noise_per_mm", "pixel_mm", "slice_mm", "hu", INPUT_DOSE)


def scan_domain(
    slices: Sequence[np.ndarray], spacing: Sequence[float], acquisition: Acquisition | None
) -> dict[str, Any]:
    """Properties of a scan that are compared: level and frequency of the noise, spacing, HU range, body part, contrast.

    The frequency represents the reconstruction kernel, whose name means something different for every vendor and is missing
    in NIfTI.

    Args:
        slices: some slices (x, y) of a scan, HU.
        spacing: pixel size along columns and rows, and distance of slices, mm.
        acquisition: contents of the headers.

    Returns:
        "noise_hu" (standard deviation in soft tissue), "noise_per_mm" (its mean frequency), "pixel_mm", "slice_mm", "hu" (0.1 %
        and 99.9 % quantiles outside padding), "body_part", "contrast" and "kernel" (only used in messages); unknown properties
        are left out.

    >>> scan_domain([np.full((32, 32), 40.0)], (0.7, 0.7, 5), None)["pixel_mm"]
    [0.7, 0.7]
    """
    found: dict[str, Any] = {"pixel_mm": sorted(map(float, spacing[:2])), "slice_mm": [float(spacing[2])] * 2}
    values = np.concatenate([hu[~padding_mask(hu)] for hu in slices])
    if values.size:
        found["hu"] = [float(value) for value in np.quantile(values, (0.001, 0.999))]
    if min(slices[0].shape) >= 9:
        with suppress(ValueError):  # no soft tissue in these slices
            found["noise_hu"] = [noise_level(np.stack(slices, axis=-1))] * 2
        with suppress(ValueError):  # no uniform soft tissue
            found["noise_per_mm"] = [noise_frequency(slices, (float(spacing[0]), float(spacing[1])))] * 2
    if acquisition is not None and acquisition.kernel:
        found["kernel"] = [acquisition.kernel]
    if acquisition is not None and acquisition.body_part:
        found["body_part"] = [acquisition.body_part]
    if acquisition is not None and acquisition.contrast is not None:
        found["contrast"] = [acquisition.contrast]
    return found


def sampled(count: int) -> list[int]:
    """Numbers of the slices that represent a scan of ``count`` slices: evenly spread, without the ends of a longer scan.

    >>> sampled(40)
    [5, 15, 25, 35]
    """
    number = min(SAMPLED, count)
    return [int((2 * k + 1) * count // (2 * number)) for k in range(number)]


def joint_domain(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the properties of several scans: ranges from the lowest to the highest value, and every body part and contrast.

    >>> joint_domain([{"noise_hu": [10, 10]}, {"noise_hu": [14, 14], "contrast": [True]}])
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
    """Warnings, one line each, about properties of a scan that lie outside the training data; unknown ones are not compared.

    Args:
        scan: properties of the scan, from :func:`scan_domain`.
        trained_on: properties of the training data, from :func:`joint_domain`, as stored with the weights.

    >>> outside({"noise_hu": [60.0, 60.0]}, {"noise_hu": [10.0, 20.0]})
    ['noise of 60 HU lies outside the 10 to 20 HU of the training data']
    """
    kernel = "".join(f" (kernel {name})" for name in scan.get("kernel", ()))
    names = {
        "noise_hu": ("noise of", "HU", _RATIO),
        "noise_per_mm": (f"a noise spectrum{kernel} of mean frequency", "/mm", _FREQUENCY_RATIO),
        "pixel_mm": ("pixels of", "mm", _RATIO),
        "slice_mm": ("slices every", "mm", _RATIO),
    }
    warnings = []
    for key, (what, unit, ratio) in names.items():
        if key in scan and key in trained_on:
            (least, most), (low, high) = scan[key], trained_on[key]
            if least < low / ratio or most > high * ratio:
                worst = least if least < low / ratio else most
                warnings.append(
                    f"{what} {worst:.3g} {unit} lies outside the {low:.3g} to {high:.3g} {unit} of the training data"
                )
    if "hu" in scan and "hu" in trained_on:
        (least, most), (low, high) = scan["hu"], trained_on["hu"]
        if least < low - _HU_MARGIN or most > high + _HU_MARGIN:
            warnings.append(
                f"values from {round(least):.6g} to {round(most):.6g} HU exceed the {low:.0f} to {high:.0f} HU of the training data"
            )
    for key, what in (("body_part", "body part"), ("contrast", "contrast")):
        new = [value for value in scan.get(key, ()) if trained_on.get(key) and value not in trained_on[key]]
        if new:
            known = ", ".join(_word(value) for value in trained_on[key])
            warnings.append(f"{what} {', '.join(map(_word, new))} is not in the training data ({known})")
    return warnings


def training_domain(
    entries: Sequence[Mapping[str, Any]],
    *,
    dose_range: Sequence[float] | None = None,
    nested_dose_range: Sequence[float] | None = None,
    zoom_range: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Properties of the training data: the low-dose volumes, their acquisition and dose, and the random changes to them.

    Args:
        entries: entries of the training split, with absolute paths; the pixels of at most 40, evenly spread, are measured.
        dose_range: lowest and highest dose that is drawn; None for the prepared dose.
        nested_dose_range: lowest and highest dose of the target, to which this dose is relative.
        zoom_range: lowest and highest magnification of a patch.
    """
    doses = None
    if dose_range is not None:
        target = nested_dose_range or (1.0, 1.0)
        doses = (min(dose_range) * min(target), max(dose_range) * max(target))
    chosen = entries[:: -(-len(entries) // _MOST_SCANS)] if entries else []
    found = joint_domain([*(_entry_domain(entry, doses) for entry in chosen), *map(_stated, entries)])
    if zoom_range is not None and "pixel_mm" in found:
        low, high = found["pixel_mm"]
        found["pixel_mm"] = [low / max(zoom_range), high / min(zoom_range)]
    relative = [_relative_dose(entry, dose_range, nested=nested_dose_range is not None) for entry in entries]
    if relative and all(relative):
        found |= joint_domain({INPUT_DOSE: list(dose)} for dose in relative if dose)
    return found


def _relative_dose(
    entry: Mapping[str, Any], dose_range: Sequence[float] | None, *, nested: bool
) -> tuple[float, float] | None:
    """Lowest and highest dose of an entry's images relative to their references; None if unknown."""
    noise_free = entry.get("provenance", {}).get("truth") == "noise-free"
    if noise_free and not nested:
        return 0.0, 0.0
    if dose_range is not None:
        return float(min(dose_range)), float(max(dose_range))
    stated = entry.get("dose_fraction")
    return None if stated is None else (float(stated), float(stated))


def _entry_domain(entry: Mapping[str, Any], doses: tuple[float, float] | None) -> dict[str, Any]:
    found = _measured(entry["image"])
    if doses is None or "noise_hu" not in found:
        return found
    reference = _measured(entry["label"]).get("noise_hu", [0.0, 0.0])[1]
    noise_free = bool(entry.get("noise_model", {}).get("noise_free"))
    found["noise_hu"] = noise_at_doses(
        found["noise_hu"][1],
        0.0 if noise_free else reference,
        entry.get("dose_fraction") or 1.0,
        doses,
        noise_free=noise_free,
    )
    return found


def noise_at_doses(
    image: float, label: float, dose_fraction: float, doses: tuple[float, float], *, noise_free: bool
) -> list[float]:
    """Noise of images at two doses, from their noise at one dose.

    Noise is inserted with variance u^2 (1/d - 1), or u^2 / d into a noise-free reference; ``u`` follows from the arguments.

    Args:
        image: noise at ``dose_fraction``, HU.
        label: noise of the reference, HU.
        dose_fraction: dose fraction of the image.
        doses: lowest and highest dose fraction.
        noise_free: whether the reference has no noise.

    Returns:
        The noise at the highest dose, then at the lowest, HU.

    >>> noise_at_doses(20.0, 10.0, 0.25, (0.0625, 1.0), noise_free=False)
    [10.0, 40.0]
    """
    own = 0.0 if noise_free else 1.0  # the part of 1/d that the reference already has
    unit = max(image**2 - label**2, 0.0) / max(1 / dose_fraction - own, 1e-6)
    return [float(np.sqrt(label**2 + unit * (1 / dose - own))) for dose in (doses[1], doses[0])]


def _measured(path: str) -> dict[str, Any]:
    image: Any = nib.load(path)
    slices = [np.asarray(image.dataobj[..., z], dtype=np.float32) for z in sampled(image.shape[2])]
    return scan_domain(slices, [float(size) for size in image.header.get_zooms()[:3]], None)


def _stated(entry: Mapping[str, Any]) -> dict[str, Any]:
    stated = entry.get("acquisition") or {}
    return {key: [stated[key]] for key in ("body_part", "contrast") if stated.get(key) not in (None, "")}


def record_domain(folder: str | Path, trainer: Any) -> None:
    """Write the properties of the training data next to the checkpoints, so that denoising can warn about other scans.

    The data are opened here, unless they have been opened before, so that errors in them are reported before the run begins.

    Args:
        folder: folder of the run.
        trainer: trainer whose loader has a ``PatchPairs``; its transforms tell which random changes are made.

    Raises:
        DataError: the data set cannot be used.
        OutputError: the file cannot be written.
    """
    dataset = trainer.data_loader.dataset
    dataset.prepare()  # in every process; the first one may have to make the data set
    if not is_main_process():
        return
    entries = getattr(dataset.data, "own_entries", dataset.data)
    found = training_domain(list(entries), **drawn_ranges(dataset.transform))
    with replacing(Path(folder) / TRAINED_ON_FILE) as temporary:
        temporary.write_text(json.dumps(plain(found), indent=2) + "\n", encoding="utf-8")


def drawn_ranges(transform: Any) -> dict[str, Sequence[float] | None]:
    """Dose and zoom ranges of the training transforms, as arguments of :func:`training_domain`."""
    found: dict[str, Sequence[float] | None] = {}
    for one in getattr(transform, "transforms", ()):
        for name in ("dose_range", "nested_dose_range", "zoom_range"):
            value = getattr(getattr(one, "transform", None), name, None)
            if value is not None:
                found[name] = value
    return found


def _word(value: Any) -> str:
    return {True: "given", False: "none"}.get(value, str(value))
