"""Mean frequency of a scan's noise power spectrum, which depends on the reconstruction kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ct_cncl.transforms.anatomy.regions import local_std, noise_power_spectrum, soft_tissue_windows, structure_index

SIZES = (16, 24, 32)
"""Sides of patches in pixels. Small patches hold the least anatomy; larger ones are used only if the noise is too smooth."""
LOWEST_STEP = 2.5
"""Frequencies below this many steps of a patch's DFT are left out, since anatomy outweighs the noise there."""
LEAST_PATCHES, MOST_PATCHES = 6, 60


def noise_frequency(slices: Sequence[np.ndarray], pixel_mm: tuple[float, float]) -> float:
    r"""Mean frequency of the noise in the most uniform patches of soft tissue.

    Args:
        slices: some slices (x, y) of one scan, HU.
        pixel_mm: pixel size along x and y, mm.

    Returns:
        Mean of \\|f\\| weighted by power, 1/mm, without the lowest frequencies, where anatomy outweighs noise.

    Raises:
        ValueError: there are fewer than :data:`LEAST_PATCHES` uniform patches of soft tissue.

    >>> rng = np.random.default_rng(0)
    >>> white = rng.normal(0, 10, (128, 128))
    >>> smooth = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))) / 4
    >>> bool(noise_frequency([smooth], (0.7, 0.7)) < 0.75 * noise_frequency([white], (0.7, 0.7)))
    True
    """
    measured = float("nan")
    for size in SIZES:
        patches = _uniform_patches(slices, size)
        if len(patches) < LEAST_PATCHES:
            break
        measured = noise_power_spectrum(np.stack(patches), pixel_mm, lowest=LOWEST_STEP).mean_frequency
        if measured > 1.2 * LOWEST_STEP / (size * max(pixel_mm)):
            break
    if not np.isfinite(measured):
        raise ValueError(
            f"Expected {LEAST_PATCHES} uniform patches of soft tissue to measure the noise in, but found fewer."
        )
    return measured


def _uniform_patches(slices: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Patches with the least structure: within 15 % of the lowest 5 %, and overlapping by at most half."""
    candidates = [found for number, image in enumerate(slices) for found in _candidates(number, image, size)]
    if not candidates:
        return []
    table = np.concatenate(candidates)
    table = table[table[:, 0] <= 1.15 * np.quantile(table[:, 0], 0.05)]
    chosen: list[tuple[int, int, int]] = []
    for number, i, j in table[np.argsort(table[:, 0], kind="stable")][:, 1:].astype(int).tolist():
        if all(number != n or max(abs(i - k), abs(j - m)) >= size // 2 for n, k, m in chosen):
            chosen.append((number, i, j))
        if len(chosen) == MOST_PATCHES:
            break
    return [slices[n][i : i + size, j : j + size].astype(np.float64) for n, i, j in chosen]


def _candidates(number: int, image: np.ndarray, size: int) -> list[np.ndarray]:
    """Candidate patches, in arrays (n, 4): amount of structure, number of the slice, and row and column of the corner."""
    window = size - 1
    if min(image.shape) <= size + 9:
        return []
    inside = local_std(soft_tissue_windows(image).astype(np.float64), window)[0] > 0.999
    half = size // 2
    inside[:half], inside[-half:], inside[:, :half], inside[:, -half:] = False, False, False, False
    if not inside.any():
        return []
    structure = local_std(image, window)[1] * structure_index(image, window)
    rows, columns = np.nonzero(inside)
    return [np.stack([structure[inside], np.full(rows.size, number), rows - half, columns - half], axis=1)]
