"""The ramp filter with which the model's noise has a scan's own mean frequency."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.anatomy.regions import local_std, noise_power_spectrum, soft_tissue_windows, structure_index

from .geometry import PixelSize
from .noise_model import WINDOW, NoiseModel, ScanSlice

PATCH_SIZES = (16, 24, 32)
"""Sides in pixels. Small patches hold least anatomy; larger ones only for noise too smooth for them."""
LOWEST_STEP = 2.5
"""Frequencies below this many steps of a patch's DFT are left out: there anatomy outweighs the noise."""
MIN_PATCHES, MAX_PATCHES = 6, 60
CUTOFF_RANGE = (0.15, 6.0)
"""Hann cut-offs tried, fraction of Nyquist: far below every clinical kernel, and 0.93 of the bare ramp at Nyquist."""


@dataclass(frozen=True)
class Spectrum:
    """The filter found, and the mean frequencies (1/mm) of scan and model with it; ``reason`` if it was not found."""

    cutoff: float | None
    """None: the filter of the settings stays."""
    scan: float = math.nan
    added: float = math.nan
    patches: int = 0
    reason: str = ""


def match_noise_spectrum(
    slices: list[ScanSlice], model: NoiseModel, noise_hu: float, *, whole: bool = False
) -> Spectrum:
    """The Hann cut-off with which model and scan have the same mean frequency, in the most uniform patches.

    Args:
        slices: what :meth:`NoiseModel.prepare` gave; up to three of them are used.
        model: the noise model; its settings hold the filter to start from.
        noise_hu: about the scan's noise level, standard deviation in its windows, HU.
        whole: the scan holds whole HU; the model's noise is then rounded likewise, at that level.
    """
    slices = slices[:: max(1, math.ceil(len(slices) / 3))]
    scans = [part.hu for part in slices]
    chosen: tuple[int, float, int] | None = None
    for size in PATCH_SIZES:
        corners = _uniform_patches(scans, slices, size)
        count = sum(len(found) for found in corners)
        if count < MIN_PATCHES:
            break
        chosen = (size, _frequency(scans, corners, size, model.pixel), count)
        if chosen[1] > 1.2 * LOWEST_STEP / (size * max(model.pixel)):
            break  # else: so smooth that most of it lies below what patches of this size show
    if chosen is None:
        return Spectrum(None, reason=f"spectrum not matched: fewer than {MIN_PATCHES} uniform patches; filter as given")
    size, scan, count = chosen
    if not scan > 0:
        return Spectrum(None, patches=count, reason="spectrum not matched: no noise in the patches; filter as given")

    def added_frequency(cutoff: float) -> float:
        noises = [model.noise(part.quantum, cutoff) for part in slices]
        if whole:
            power = np.concatenate([noise[part.windows] ** 2 for noise, part in zip(noises, slices, strict=True)])
            noises = [np.rint(noise * (noise_hu / math.sqrt(power.mean()))) for noise in noises]
        # Patches chosen by the same rule: the choice prefers fine texture, in both alike.
        return _frequency(noises, _uniform_patches(noises, slices, size), size, model.pixel)

    cutoff, added = _solve_cutoff(added_frequency, scan)
    short = abs(added / scan - 1) > 0.05
    reason = f"spectrum matched to {100 * (added / scan - 1):+.0f} % only: beyond the range of filters" if short else ""
    return Spectrum(cutoff, scan, added, count, reason)


def _frequency(images: list[np.ndarray], corners: list[list[tuple[int, int]]], size: int, pixel: PixelSize) -> float:
    """Mean frequency, 1/mm, of the noise in the patches."""
    patches = [image[i : i + size, j : j + size] for image, at in zip(images, corners, strict=True) for i, j in at]
    return noise_power_spectrum(np.stack(patches), pixel, lowest=LOWEST_STEP).mean_frequency


def _solve_cutoff(frequency: Callable[[float], float], target: float) -> tuple[float, float]:
    """The cut-off at which the rising function ``frequency`` meets the target, and its value there; at most 10 calls.

    Secant steps in the logarithm, kept inside the bracket that has been found so far.
    """
    low, high = (math.log(value) for value in CUTOFF_RANGE)
    position, previous = 0.0, None
    best = (math.inf, 0.0, 0.0)
    for _ in range(10):
        value = frequency(math.exp(position))
        error = value / target - 1
        best = min(best, (abs(error), position, value))
        if abs(error) < 0.006 or high - low < 0.01:
            break
        low, high = (position, high) if error < 0 else (low, position)
        slope = 0.6 if previous is None else (error - previous[1]) / (position - previous[0])
        previous = (position, error)
        step = position - error / slope if slope > 0.02 else low
        position = step if low < step < high else (low + high) / 2
    return math.exp(best[1]), best[2]


def _uniform_patches(images: list[np.ndarray], slices: list[ScanSlice], size: int) -> list[list[tuple[int, int]]]:
    """Corners, slice by slice, of the patches of soft tissue where ``images`` (x, y), HU, have least structure.

    The measure is the deviation relative to the model's noise, times
    :func:`~ct_cncl.transforms.anatomy.regions.structure_index`.

    Patches overlap by half at the most. Those more than 15 % above the lowest twentieth may hold structure: left out.
    """
    candidates: list[np.ndarray] = []
    for n, (image, part) in enumerate(zip(images, slices, strict=True)):
        window = size - 1
        if min(image.shape) <= size:
            continue
        ratio = local_std(image, window)[1] / part.level * structure_index(image, window)
        whole = soft_tissue_windows(part.hu, window=WINDOW)
        inside = local_std(whole, window)[0] > 0.999
        half = size // 2
        inside[:half], inside[-half:], inside[:, :half], inside[:, -half:] = False, False, False, False
        rows, columns = np.nonzero(inside)
        candidates.append(np.stack([ratio[inside], np.full(rows.size, n), rows - half, columns - half], axis=1))
    table = np.concatenate(candidates) if candidates else np.zeros((0, 4))
    if table.shape[0] == 0:
        return [[] for _ in slices]
    table = table[table[:, 0] <= 1.15 * np.quantile(table[:, 0], 0.05)]
    table = table[np.argsort(table[:, 0])]
    found: list[list[tuple[int, int]]] = [[] for _ in slices]
    total = 0
    for n, i, j in table[:, 1:].astype(int).tolist():
        if total == MAX_PATCHES:
            break
        if all(max(abs(i - k), abs(j - m)) >= size // 2 for k, m in found[n]):
            found[n].append((i, j))
            total += 1
    return found
