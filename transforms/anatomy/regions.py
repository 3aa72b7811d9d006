"""Regions of a CT slice and the noise in them: padding, uniform soft tissue, local deviation, noise power spectrum.

Slices are arrays (x, y), volumes (x, y, z), in HU; pixel sizes are (dx, dy) in mm for axes 0 and 1. Pure functions.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

ArrayLike = TypeVar("ArrayLike", bound=Any)

PADDING_HU = -1500.0
"""Values at or below this cannot be measurements: air is -1000 HU, and its noise seldom reaches -1100."""
SEEN_PADDING_HU = -1024
"""Value that networks see in place of padding."""
SOFT_TISSUE_HU = (-50.0, 200.0)
"""Range of local means, HU, that holds water, organs and muscle, with or without contrast agent, but not fat, lung or bone."""
MIN_WINDOWS = 50
"""Smallest number of uniform windows from which a scan's noise can be measured."""
LOW_QUANTILE = 0.2
"""Quantile of the local standard deviations that is taken for the noise: low enough to exclude most anatomy."""


@lru_cache(maxsize=8)
def _corners_and_rim(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the pixels well outside the inscribed circle and of those outside 98.5 % of its radius, cached by shape."""
    radius = _normalised_radius(shape)
    masks = radius > 1.02, radius > 0.985
    for mask in masks:
        mask.flags.writeable = False
    return masks


def _normalised_radius(shape: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel from the image centre; 1 on the inscribed circle (an ellipse for unequal sides)."""
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    return np.hypot(axes[0][:, None], axes[1][None, :])


def padding_mask(hu: np.ndarray) -> np.ndarray:
    """Mask of the pixels that the scanner filled in outside its circular field of view.

    Scanners write -2000 or lower there. Files clipped at -1024 hold -1024, which is also a possible value of air. So:

    1. every pixel at or below :data:`PADDING_HU` is padding;
    2. if all pixels in the four corners of a slice (more than 2 % beyond the inscribed circle) have the same value, at or
       below -1000 HU, then pixels of exactly this value outside the inscribed circle are padding too (outside 98.5 % of its
       radius, since some fields of view lie 2 or 3 pixels off centre). Measured air is never that constant.

    Args:
        hu: (x, y) or (x, y, z), HU; the rule is applied slice by slice.

    Returns:
        bool, the same shape, True on padding.

    Raises:
        ValueError: ``hu`` has neither two nor three axes.

    >>> grid = np.hypot(*np.mgrid[-7.5:8, -7.5:8])
    >>> slice_hu = np.where(grid > 8, -1024, 40)
    >>> bool((padding_mask(slice_hu) == (grid > 8)).all())
    True
    """
    hu = np.asarray(hu)
    if hu.ndim not in (2, 3):
        raise ValueError(f"Expected a slice (x, y) or a volume (x, y, z), but got shape {hu.shape}.")
    corners, rim = _corners_and_rim((hu.shape[0], hu.shape[1]))
    mask = hu <= PADDING_HU
    if corners.any():
        in_corners = hu[corners]
        value = in_corners[0]
        constant = (in_corners == value).all(axis=0) & (value <= -1000)
        rim = rim if hu.ndim == 2 else rim[..., None]
        mask |= (hu == value) & constant & rim
    return mask


def padding_as_air(hu: ArrayLike) -> ArrayLike:
    """Replace padding for a network: values at or below :data:`PADDING_HU` become :data:`SEEN_PADDING_HU`, all others stay.

    Scanners pad with -2000 or -3024 HU. Where the patient reaches the edge of the field of view, this makes a step of up to
    3000 HU, larger than any in tissue, and networks respond with a ring of wrong pixels along it. Most files are clipped at
    -1024 HU, and so were the training scans of the shipped weights.

    Args:
        hu: array or tensor of any shape, HU.

    Returns:
        An array or tensor like ``hu``; ``hu`` itself if it holds no such value.

    >>> padding_as_air(np.array([-3024, -1500, -1499, 40])).tolist()
    [-1024, -1024, -1499, 40]
    """
    if 0 in hu.shape or hu.min() > PADDING_HU:  # nearly always, and quicker than a mask; a NaN makes this false
        return hu
    padded = hu <= PADDING_HU
    if not padded.any():
        return hu
    seen = hu + padded * (SEEN_PADDING_HU - hu)
    return cast("ArrayLike", seen.astype(hu.dtype) if isinstance(hu, np.ndarray) else seen)


def local_std(hu_slice: np.ndarray, window: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the window around each pixel.

    Args:
        hu_slice: (x, y), HU.
        window: side in pixels, odd, no longer than either side of the slice.

    Returns:
        (local mean, local standard deviation), each (x, y) float64, HU; the variance is divided by ``window**2``.

    Raises:
        ValueError: the slice is not two-dimensional, or the window is even, below 3 or larger than the slice.

    >>> mean, deviation = local_std(np.indices((9, 9))[0], window=3)
    >>> float(mean[4, 4]), float(deviation[4, 4].round(4))
    (4.0, 0.8165)
    """
    image = np.asarray(hu_slice, dtype=np.float64)
    if image.ndim != 2:
        raise ValueError(f"Expected one slice (x, y), but got shape {image.shape}. Call it slice by slice.")
    if window < 3 or window % 2 == 0 or window > min(image.shape):
        raise ValueError(f"Expected an odd window from 3 to {min(image.shape)} pixels, but got {window}.")
    centre = image.mean()
    mean = _window_means(image - centre, window)  # centred first: E[x^2] - E[x]^2 must not cancel
    square = _window_means((image - centre) ** 2, window)
    return mean + centre, np.sqrt(np.maximum(square - mean**2, 0.0))


def _window_means(image: np.ndarray, window: int) -> np.ndarray:
    """Means over the window around each pixel, mirrored at the borders.

    The same as scipy's ``uniform_filter``, at a third of its time, and without the import of scipy, which would be a tenth of
    the time that ``ct-cncl denoise`` needs for one slice.
    """
    rows, columns = image.shape
    padded = np.pad(image, window // 2, mode="reflect")
    tall = reduce(np.add, (padded[k : k + rows] for k in range(window)))
    return reduce(np.add, (tall[:, k : k + columns] for k in range(window))) / window**2


def structure_index(hu_slice: np.ndarray, window: int = 9) -> np.ndarray:
    """Coarseness of the texture around each pixel: standard deviation of the 5 x 5 means over that of the residual.

    Edges, vessels and gradients raise it, while pure noise stays in a narrow range at any noise level. So windows below a
    limit that is derived from noise of the same spectrum hold little anatomy.

    Args:
        hu_slice: (x, y), HU.
        window: side in pixels, odd, see :func:`local_std`.

    Returns:
        (x, y) float64, dimensionless, 0 or more.

    Raises:
        ValueError: see :func:`local_std`.

    >>> noise = np.random.default_rng(0).normal(0, 10, (64, 64))
    >>> edge = np.where(np.arange(64) < 32, 0.0, 60.0)[:, None]
    >>> noise_only, both = structure_index(noise), structure_index(noise + edge)
    >>> bool(both[32].min() > 3 * noise_only.mean())
    True
    """
    image = np.asarray(hu_slice, dtype=np.float64)
    coarse, _ = local_std(image, 5)
    return local_std(coarse, window)[1] / np.maximum(local_std(image - coarse, window)[1], 1e-9)


def _shifted_all(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where ``mask`` is True at the pixel and at the eight pixels ``reach`` away along the axes and diagonals."""
    rows, columns = mask.shape
    padded = np.pad(mask, reach)
    tall = reduce(np.logical_and, (padded[k : k + rows] for k in (0, reach, 2 * reach)))
    return reduce(np.logical_and, (tall[:, k : k + columns] for k in (0, reach, 2 * reach)))


def soft_tissue_windows(
    hu_slice: np.ndarray,
    *,
    window: int = 9,
    hu_range: tuple[float, float] = SOFT_TISSUE_HU,
) -> np.ndarray:
    """Centres of the windows that lie in soft tissue, at least one window side away from anything else.

    A window counts if its own mean and the means of its eight neighbours, one window side away, are inside ``hu_range``.
    Noise hardly changes a mean over 81 pixels, so the choice does not depend on it; a limit on single pixels would. Structure
    inside soft tissue remains, so take a low quantile of the standard deviations.

    Args:
        hu_slice: (x, y), HU.
        window: side in pixels, odd.
        hu_range: lowest and highest local mean, HU.

    Returns:
        bool (x, y), True on window centres.

    Raises:
        ValueError: see :func:`local_std`.

    >>> windows = soft_tissue_windows(np.pad(np.zeros((40, 40)), 10, constant_values=-1000.0))
    >>> np.argwhere(windows).min(axis=0), np.argwhere(windows).max(axis=0)
    (array([23, 23]), array([36, 36]))
    """
    mean, _ = local_std(hu_slice, window)
    inside = (mean >= hu_range[0]) & (mean <= hu_range[1])
    return _shifted_all(inside, window)


_WINDOW = 9
"""Side of the windows of :func:`noise_level`, pixels."""


def noise_level(
    volume: np.ndarray,
) -> float:
    """Noise level of a scan: a low quantile of the local standard deviations in its soft tissue.

    The quantile lies below the mean of the local estimates, so for correlated CT noise the absolute figure is 10 to 20 %
    too low. Use it to rank scans, and to compare two of them on the same windows.

    Args:
        volume: (x, y) or (x, y, z), HU.

    Returns:
        Standard deviation, HU.

    Raises:
        ValueError: there are fewer than :data:`MIN_WINDOWS` windows in soft tissue; see also :func:`local_std`.

    >>> noise = np.random.default_rng(0).normal(0, 10, (64, 64))
    >>> round(noise_level(noise), 1)
    9.3
    """
    volume = np.asarray(volume)
    slices = volume[..., None] if volume.ndim == 2 else volume
    found = []
    for z in range(slices.shape[2]):
        mask = soft_tissue_windows(slices[..., z], window=_WINDOW, hu_range=SOFT_TISSUE_HU)
        if mask.any():
            found.append(local_std(slices[..., z], _WINDOW)[1][mask])
    count = sum(part.size for part in found)
    if count < MIN_WINDOWS:
        raise ValueError(
            f"Expected {MIN_WINDOWS} or more windows in soft tissue ({SOFT_TISSUE_HU[0]:g} to {SOFT_TISSUE_HU[1]:g} HU), but got "
            f"{count}. Give a volume in HU that shows soft tissue."
        )
    return float(np.quantile(np.concatenate(found), LOW_QUANTILE))


class NoisePower(NamedTuple):
    """A noise power spectrum and its radial mean."""

    spectrum: np.ndarray
    """(k, k) HU^2 mm^2, zero frequency first, as numpy's FFT orders it."""
    frequency: np.ndarray
    """(bins,) 1/mm, centres of the radial bins, up to the lower of the two Nyquist frequencies."""
    radial: np.ndarray
    """(bins,) HU^2 mm^2, mean of the spectrum over each ring."""
    mean_frequency: float
    """Mean of |f| weighted by power, over the whole spectrum without its lowest frequencies, 1/mm."""


def noise_power_spectrum(patches: np.ndarray, pixel_mm: tuple[float, float], *, lowest: float = 2.5) -> NoisePower:
    """Noise power spectrum of square patches of uniform tissue.

    A fitted plane (mean, cupping, shading) is subtracted from each patch, the residual is weighted by a Hann window, and
    ``NPS = dx dy / sum(window^2) * mean |DFT|^2``. The mean frequency leaves out ``|f|`` below ``lowest`` steps of the
    DFT, where anatomy and the fitted plane outweigh the noise.

    Args:
        patches: (n, k, k), HU.
        pixel_mm: (dx, dy) in mm.
        lowest: lowest frequency of the mean, in steps of 1 / (k max(dx, dy)).

    Raises:
        ValueError: the patches are not (n, k, k) with n >= 1 and k >= 8.

    Source: ICRU report 87 (2012), chapter 4; Solomon et al. 2012, Med Phys 39:6048.

    >>> noise = np.random.default_rng(0).normal(0, 10, (200, 32, 32))
    >>> power = noise_power_spectrum(noise, (0.5, 0.5))  # white: 10^2 * 0.5^2 = 25 HU^2 mm^2
    >>> float(power.radial[4:].mean().round(0))
    25.0
    """
    patches = np.asarray(patches, dtype=np.float64)
    if patches.ndim != 3 or patches.shape[0] < 1 or patches.shape[1] != patches.shape[2] or patches.shape[1] < 8:
        raise ValueError(f"Expected patches (n, k, k) with n >= 1 and k >= 8, but got shape {patches.shape}.")
    k = patches.shape[1]
    ramp = np.arange(k) - (k - 1) / 2
    power = np.sum(ramp**2) * k
    patches = patches - patches.mean(axis=(1, 2), keepdims=True)
    along_x = np.einsum("nij,i->n", patches, ramp)[:, None, None] / power * ramp[:, None]
    along_y = np.einsum("nij,j->n", patches, ramp)[:, None, None] / power * ramp[None, :]
    hann = np.hanning(k + 2)[1:-1]
    weight = hann[:, None] * hann[None, :]
    transform = np.fft.fft2((patches - along_x - along_y) * weight)
    spectrum = (np.abs(transform) ** 2).mean(axis=0) * pixel_mm[0] * pixel_mm[1] / np.sum(weight**2)

    radius = np.hypot(np.fft.fftfreq(k, pixel_mm[0])[:, None], np.fft.fftfreq(k, pixel_mm[1])[None, :])
    step = 1 / (k * max(pixel_mm))
    ring = np.floor(radius / step).astype(int)
    bins = k // 2
    inside = ring < bins
    count = np.maximum(np.bincount(ring[inside], minlength=bins), 1)
    radial = np.bincount(ring[inside], weights=spectrum[inside], minlength=bins) / count
    used = radius >= lowest * step
    total = float(spectrum[used].sum())
    mean_frequency = float((radius[used] * spectrum[used]).sum() / total) if total > 0 else float("nan")
    return NoisePower(spectrum, (np.arange(bins) + 0.5) * step, radial, mean_frequency)
