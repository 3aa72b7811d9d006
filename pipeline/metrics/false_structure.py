"""False structure: blobs in an image that should hold nothing but noise, counted with a matched filter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label
from scipy.signal import fftconvolve

_LEVEL = 0.999
"""Quantile of the filtered unprocessed noise that a blob must exceed."""


class Blobs(NamedTuple):
    """Bright and dark blobs per square centimetre of signal-free images.

    Attributes:
        visible: blobs above the level of the unprocessed noise in HU: they resemble the insert as strongly as the strongest noise
            of the scan does.
        relative: blobs above that level after both noises are scaled to the same standard deviation: they stand out from the
            remaining noise. A method that only scales the noise has as many as the input; one that leaves or makes blobs has more.
    """

    visible: float
    relative: float


def blobs_per_cm2(
    residual: np.ndarray, noise: np.ndarray, template: np.ndarray, region: np.ndarray, pixel_mm: tuple[float, float]
) -> Blobs:
    """Count blobs of a template's size where there is no signal.

    Residual and noise are filtered with the template. A blob is a connected region (8 neighbours) in which the magnitude of the
    filtered residual is above the quantile :data:`_LEVEL` of the filtered noise's magnitude.

    Args:
        residual: result minus its known truth, (x, y, slices), HU.
        noise: noise of the unprocessed scan, the same shape, HU; it sets the level.
        template: the signal to look for, (odd, odd); for white noise it is its own matched filter.
        region: bool (x, y), True where to look; the filter needs half a template around it.
        pixel_mm: (dx, dy) in mm.

    Raises:
        ValueError: the shapes differ, or the region is empty.

    >>> noise = np.random.default_rng(0).normal(0, 10, (64, 64, 4))
    >>> found = blobs_per_cm2(0.3 * noise, noise, np.ones((5, 5)), np.ones((64, 64), bool), (1.0, 1.0))
    >>> found.visible, found.relative > 0
    (0.0, True)
    """
    if residual.shape != noise.shape or residual.shape[:2] != region.shape or not region.any():
        raise ValueError(
            f"Expected residual and noise (x, y, slices) of the same shape and a region in it, but got {residual.shape}, {noise.shape} and "
            f"{region.shape} with {int(region.sum())} pixels."
        )
    seen, usual = (_filtered(image, template) for image in (residual, noise))
    level = float(np.quantile(np.abs(usual[region]), _LEVEL))
    before, after = float(noise[region].std()), float(residual[region].std())
    area = residual.shape[2] * region.sum() * pixel_mm[0] * pixel_mm[1] / 100
    if after == 0:
        return Blobs(0.0, 0.0)
    return Blobs(*(float(_count(seen, at, region) / area) for at in (level, level * after / before)))


def _filtered(volume: np.ndarray, template: np.ndarray) -> np.ndarray:
    kernel = template[::-1, ::-1, None] / np.sqrt((template**2).sum())
    return np.asarray(fftconvolve(volume.astype(np.float64), kernel, mode="same", axes=(0, 1)))


def _count(filtered: np.ndarray, level: float, region: np.ndarray) -> int:
    """Number of connected regions, over both signs and all slices."""
    return sum(
        int(label((sign * filtered[..., k] > level) & region, structure=np.ones((3, 3)))[1])
        for k in range(filtered.shape[2])
        for sign in (1, -1)
    )
