"""Task transfer function: how much of each spatial frequency an image preserves at a disc's edge. Pure functions.

A denoiser is not linear: what it preserves depends on the contrast and on the noise. So the function is measured separately
for each contrast and dose, from discs averaged over noise realizations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import expit

BIN_PIXELS = 0.1
"""Bin width of the edge profile, in pixels. Bins may be finer than pixels, since a circle crosses pixels at all positions."""
LEAST_WIDTH, MOST_WIDTH = 0.05, 10.0
"""Bounds of the width of a disc's edge, pixels: from a step to a blur that leaves no disc."""
REACH_PIXELS = 12.0
"""Length of the edge profile on each side of the edge, pixels; half the radius if that is shorter."""


class Disc(NamedTuple):
    """A disc fitted to an image."""

    x: float
    """Position of the centre, pixels from the centre of the first pixel; likewise ``y``."""
    y: float
    radius: float
    """Pixels."""
    width: float
    """Width of the edge, pixels: scale of the fitted logistic function."""
    contrast: float
    """Inside minus outside, HU."""


class TaskTransfer(NamedTuple):
    """A task transfer function."""

    frequency: np.ndarray
    """(n,) cycles/mm, from 0."""
    ttf: np.ndarray
    """(n,), 1 at frequency 0."""
    half_per_mm: float
    """Frequency at which it first falls to 0.5; NaN if it does not."""
    tenth_per_mm: float
    """Frequency at which it first falls to 0.1; NaN if it does not."""


def fit_disc(image: np.ndarray, *, centre: tuple[float, float], radius: float) -> Disc:
    """Least-squares fit of a disc with a soft edge, ``background + contrast / (1 + exp((r - radius) / width))``.

    The fit uses pixels up to one and a half radii from the first guess; the width stays between 0.05 and 10 pixels.

    Args:
        image: (x, y), HU; a mean over realizations if noise is high.
        centre: first guess of the centre, pixels; at most a quarter of the radius off.
        radius: first guess of the radius, pixels, 3 or more.

    Raises:
        ValueError: the disc with its surroundings is not inside the image, has no contrast, or noise prevents the fit.

    >>> x, y = np.mgrid[:64, :64]
    >>> image = 50 / (1 + np.exp((np.hypot(x - 31.3, y - 32.2) - 12) / 0.5))
    >>> [round(value, 2) for value in fit_disc(image, centre=(32, 32), radius=11)]
    [31.3, 32.2, 12.0, 0.5, 50.0]
    """
    from scipy.optimize import least_squares

    x, y = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    distance = np.hypot(x - centre[0], y - centre[1])
    reach = 1.5 * radius
    fits = all(reach <= place <= length - 1 - reach for place, length in zip(centre, image.shape))
    if radius < 3 or not fits:
        raise ValueError(
            f"Expected a disc with a radius of 3 pixels or more, and half a radius around it inside the image, but got radius "
            f"{radius} at {centre} in {image.shape}."
        )
    near = distance <= reach
    x, y, values = x[near], y[near], image[near].astype(np.float64)
    outside = float(values[distance[near] > 1.25 * radius].mean())
    inside = float(values[distance[near] < 0.75 * radius].mean())
    if not np.isfinite(inside - outside) or inside == outside:
        raise ValueError("Expected a disc with contrast, but its mean equals that of its surroundings.")
    found = least_squares(
        lambda parameters: _soft_disc(x, y, parameters) - values,
        np.array([*centre, radius, 0.7, inside - outside, outside]),
        bounds=([-np.inf] * 3 + [LEAST_WIDTH] + [-np.inf] * 2, [np.inf] * 3 + [MOST_WIDTH] + [np.inf] * 2),
        x_scale="jac",
    ).x
    if not (np.isfinite(found).all() and math.hypot(found[0] - centre[0], found[1] - centre[1]) < radius / 2):
        raise ValueError(
            f"Expected a disc that can be fitted, but noise outweighs its contrast of {inside - outside:.3g} HU."
        )
    return Disc(*(float(value) for value in found[:5]))


def _soft_disc(x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Values (n,) of the model, HU; the parameters are in the order of :class:`Disc`, then the background."""
    cx, cy, radius, width, contrast, background = parameters
    return background + contrast * expit((radius - np.hypot(x - cx, y - cy)) / width)


def edge_profile(image: np.ndarray, disc: Disc) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the image as a function of the distance from the disc's edge, in bins of a tenth of a pixel.

    Args:
        image: (x, y), HU.
        disc: from :func:`fit_disc`.

    Returns:
        Distances from the edge (n,), pixels, and means (n,), HU; empty bins are interpolated.
    """
    x, y = np.mgrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(x - disc.x, y - disc.y) - disc.radius
    reach = min(REACH_PIXELS, disc.radius / 2)
    count = 2 * round(reach / BIN_PIXELS)
    place = np.floor(distance / BIN_PIXELS + count / 2).astype(int)
    used = (place >= 0) & (place < count)
    pixels = np.bincount(place[used], minlength=count)
    sums = np.bincount(place[used], weights=image[used].astype(np.float64), minlength=count)
    # The position of a bin is the mean distance of its pixels, not the middle of the bin.
    where = np.bincount(place[used], weights=distance[used], minlength=count)
    filled = pixels > 0
    middle = (np.arange(count) - count / 2 + 0.5) * BIN_PIXELS
    return middle, np.interp(middle, where[filled] / pixels[filled], sums[filled] / pixels[filled])


def task_transfer(image: np.ndarray, *, centre: tuple[float, float], radius_mm: float, pixel_mm: float) -> TaskTransfer:
    """Task transfer function (the modulation transfer function at this contrast) from the edge of a disc.

    The disc is fitted and the edge profile averaged over all directions. Its derivative is the line spread function, and the
    magnitude of the Fourier transform, scaled to 1 at frequency 0, is the result, corrected for the width of the bins.

    Args:
        image: (x, y), HU, with square pixels; a mean over noise realizations.
        centre: approximate centre of the disc, pixels from the centre of the first pixel, at most a quarter of the radius off.
        radius_mm: radius of the disc.
        pixel_mm: side of a pixel.

    Returns:
        The function up to the Nyquist frequency of the pixels.

    Raises:
        ValueError: see :func:`fit_disc`; or the edge profile is flat.

    Source: Richard et al. 2012, Med Phys 39(7):4115 (task transfer function); Friedman et al. 2013, Med Phys 40:051907
        (from the edge of a cylinder).

    >>> x, y = np.mgrid[:64, :64]
    >>> image = 50 / (1 + np.exp((np.hypot(x - 31.3, y - 32.2) - 14) / 0.5))
    >>> result = task_transfer(image, centre=(32, 32), radius_mm=7.0, pixel_mm=0.5)
    >>> round(result.half_per_mm, 2)  # of a logistic edge of 0.25 mm: z / sinh(z) with z = 2 pi^2 0.25 f
    0.44
    """
    disc = fit_disc(image, centre=centre, radius=radius_mm / pixel_mm)
    distance, profile = edge_profile(image, disc)
    spread = np.diff(profile) / BIN_PIXELS
    middle = (distance[1:] + distance[:-1]) / 2
    # There is only noise far from the edge, so apply a taper that is 1 near the edge.
    extent = np.abs(distance).max()
    taper = np.cos(np.pi / 2 * np.clip((np.abs(middle) / extent - 0.5) / 0.5, 0, 1)) ** 2
    spread = spread * taper
    total = float(spread.sum() * BIN_PIXELS)
    if total == 0:
        raise ValueError("Expected an edge, but the profile is flat.")
    frequency = np.arange(0.0, 0.5 + 1e-9, 0.005)  # cycles/pixel
    waves = np.exp(-2j * np.pi * frequency[:, None] * middle[None, :])
    ttf = np.abs(waves @ spread) * BIN_PIXELS / abs(total)
    ttf /= np.sinc(frequency * BIN_PIXELS) ** 2  # one for the difference, one for the mean over a bin
    ttf /= ttf[0]
    per_mm = frequency / pixel_mm
    return TaskTransfer(per_mm, ttf, crossing(per_mm, ttf, 0.5), crossing(per_mm, ttf, 0.1))


def crossing(frequency: np.ndarray, curve: np.ndarray, level: float) -> float:
    """The frequency at which a curve first falls to ``level``; NaN if it does not.

    >>> crossing(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.8, 0.2]), 0.5)
    1.5
    """
    below = np.flatnonzero(curve <= level)
    if below.size == 0 or below[0] == 0:
        return math.nan
    k = int(below[0])
    share = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
    return float(frequency[k - 1] + share * (frequency[k] - frequency[k - 1]))
