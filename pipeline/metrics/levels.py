"""HU levels: by how much a denoiser shifts the mean of large discs inside one tissue."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.signal import fftconvolve

from ct_cncl.transforms.anatomy.regions import soft_tissue_windows

DISC_MM = 30.0
MARGIN_PIXELS = 16
"""Smallest distance from a disc to the edge of its tissue: 4 standard deviations of a filter of 4 pixels."""


def disc_shifts(
    before: np.ndarray, after: np.ndarray, pixel_mm: tuple[float, float], *, region: np.ndarray | None = None
) -> np.ndarray:
    """Mean of after - before over discs of 30 mm diameter in soft tissue, at least 16 pixels from its edge.

    Args:
        before: (x, y, slices), HU.
        after: the same shape, HU.
        pixel_mm: (dx, dy) in mm.
        region: bool (x, y), True on the tissue; None finds soft tissue in ``before``.

    Returns:
        (discs,) HU, for non-overlapping discs; empty if none fits.

    >>> volume = np.zeros((200, 200, 1))
    >>> disc_shifts(volume, volume + 0.25, (1.0, 1.0)).max().round(6)
    np.float64(0.25)
    """
    half = [int(DISC_MM / 2 / size) for size in pixel_mm]
    x, y = (np.arange(-count, count + 1) * size for count, size in zip(half, pixel_mm))
    disc = (np.hypot(x[:, None], y[None, :]) <= DISC_MM / 2).astype(np.float64)
    found = []
    for k in range(before.shape[2]):
        tissue = soft_tissue_windows(before[..., k]) if region is None else region
        depth = distance_transform_edt(np.pad(tissue, 1), sampling=pixel_mm)[1:-1, 1:-1]
        fits = depth >= DISC_MM / 2 + MARGIN_PIXELS * max(pixel_mm)
        means = fftconvolve(after[..., k].astype(np.float64) - before[..., k], disc, mode="same") / disc.sum()
        while fits.any():
            at = np.unravel_index(int(np.argmax(fits)), fits.shape)
            found.append(float(means[at]))
            fits[
                max(at[0] - 2 * half[0], 0) : at[0] + 2 * half[0], max(at[1] - 2 * half[1], 0) : at[1] + 2 * half[1]
            ] = False
    return np.array(found)
