"""Periodograms of soft-tissue patches, ring by ring, and their expected values for ramp-filtered noise.

Slices are arrays (x, y) in HU; pixel sizes are (dx, dy) in mm. Rings are centred on
multiples of the frequency step of the patch's DFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ct_cncl.transforms.anatomy.regions import SOFT_TISSUE_HU, local_std, padding_mask

from .geometry import PixelSize

PATCH_SIZES = (32, 24, 16)
"""Sides in pixels, largest first: large patches resolve low frequencies, small ones fit into little tissue."""
WINDOW = 9
"""Side in pixels of the windows whose means must be those of soft tissue everywhere in a patch."""
MOST_PATCHES = 120
"""More would cost time and add nothing; these are spread evenly over all patches found."""
SPACING = 4
"""Neighbouring patches are a quarter of a side apart, so that some fit into narrow tissue."""


@dataclass(frozen=True)
class Rings:
    """The rings of a k x k DFT."""

    index: np.ndarray
    """(k, k) int, the ring of each coefficient."""
    count: np.ndarray
    """(rings,) number of coefficients in each."""
    frequency: np.ndarray
    """(rings,) 1/mm, mean of |f| over each; 0 for the first."""


@lru_cache(maxsize=32)
def rings(size: int, pixel: PixelSize) -> Rings:
    """The rings of patches with ``size`` pixels of ``pixel`` mm a side.

    >>> rings(8, (1.0, 1.0)).count.sum(), rings(8, (1.0, 1.0)).frequency[:2]
    (np.int64(64), array([0.        , 0.15088835]))
    """
    radius = np.hypot(np.fft.fftfreq(size, pixel[0])[:, None], np.fft.fftfreq(size, pixel[1])[None, :])
    index = np.rint(radius * size * max(pixel)).astype(int)
    count = np.bincount(index.ravel())
    used = np.flatnonzero(count)
    index = np.searchsorted(used, index)  # drop rings without a coefficient (pixels far from square)
    count = count[used]
    frequency = np.bincount(index.ravel(), weights=radius.ravel()) / count
    for values in (index, count, frequency):
        values.flags.writeable = False
    return Rings(index, count, frequency)


def ring_means(spectra: np.ndarray, size: int, pixel: PixelSize) -> np.ndarray:
    """Means of spectra (..., k, k) over each ring: (..., rings)."""
    ring = rings(size, pixel)
    order = np.argsort(ring.index, axis=None, kind="stable")
    starts = np.concatenate([[0], np.cumsum(ring.count)[:-1]])
    flat = spectra.reshape(*spectra.shape[:-2], -1)[..., order]
    return np.add.reduceat(flat, starts, axis=-1) / ring.count


@lru_cache(maxsize=8)
def _window(size: int) -> np.ndarray:
    hann = np.hanning(size + 2)[1:-1]
    hann.flags.writeable = False
    return hann


def plane_periodograms(patches: np.ndarray, pixel: PixelSize) -> np.ndarray:
    """Periodograms (n, k, k) of patches, HU^2 mm^2, in the order of ``np.fft.fftfreq``: plane subtracted, Hann window."""
    hann = _window(patches.shape[1])
    weight = hann[:, None] * hann
    transform = np.fft.fft2(without_plane(patches) * weight)
    return np.asarray((transform.real**2 + transform.imag**2) * (pixel[0] * pixel[1] / np.sum(weight**2)))


def periodograms(patches: np.ndarray, pixel: PixelSize) -> np.ndarray:
    """Noise power of each patch, ring by ring: :func:`plane_periodograms`, averaged over each ring.

    Args:
        patches: (n, k, k), HU.
        pixel: (dx, dy) in mm.

    Returns:
        (n, rings), HU^2 mm^2.

    >>> noise = np.random.default_rng(0).normal(0, 10, (200, 32, 32))
    >>> float(periodograms(noise, (0.5, 0.5))[:, 3:].mean().round())  # white: 10^2 * 0.5^2
    25.0
    """
    return ring_means(plane_periodograms(patches, pixel), patches.shape[1], pixel)


def without_plane(patches: np.ndarray) -> np.ndarray:
    """Subtract mean and gradient from patches (n, k, k), fitted with the weights of the Hann window."""
    values = np.asarray(patches, dtype=np.float64)
    for shape, weight in _plane(values.shape[1]):
        values = values - np.einsum("nij,ij->n", values, weight)[:, None, None] * shape
    return values


@lru_cache(maxsize=8)
def _plane(size: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Constant and gradients (k, k), and for each the weights (k, k) that tell how much of it a patch holds."""
    hann = _window(size) ** 2 / np.sum(_window(size) ** 2)
    weight = hann[:, None] * hann
    ramp = np.arange(size) - (size - 1) / 2
    one = np.ones((size, size))
    along = (one, one * ramp[:, None], one * ramp)
    return tuple((shape, weight * shape / np.sum(weight * shape**2)) for shape in along)


@lru_cache(maxsize=32)
def expected_ramp(size: int, pixel: PixelSize) -> np.ndarray:
    """Expected :func:`periodograms` (rings,) of noise with the spectrum ``|f|``, HU^2 mm^2.

    >>> white = np.random.default_rng(0).normal(0, 1, (4, 64, 64))
    >>> ramp = np.sqrt(np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)))
    >>> noise = np.fft.ifft2(np.fft.fft2(white) * ramp).real.reshape(4, 4, 16, 4, 16).swapaxes(2, 3).reshape(-1, 16, 16)
    >>> bool(np.allclose(periodograms(noise, (1.0, 1.0))[:, 1:].mean(axis=0) / expected_ramp(16, (1.0, 1.0))[1:], 1, atol=0.25))
    True
    """
    result = expected_power(size, pixel, fine_frequencies(size, pixel))
    result.flags.writeable = False
    return result


@lru_cache(maxsize=8)
def fine_frequencies(size: int, pixel: PixelSize) -> np.ndarray:
    """|f| (m, m), 1/mm, on the grid on which :func:`expected_power` takes a spectrum."""
    x, y = (np.fft.fftfreq(4 * size, side) for side in pixel)
    return np.hypot(x[:, None], y[None, :])


def expected_power(size: int, pixel: PixelSize, spectrum: np.ndarray) -> np.ndarray:
    """Expected :func:`periodograms` (rings,) of noise with a given spectrum, HU^2 mm^2.

    The window smears the spectrum, and subtracting the plane removes some noise with it; both follow from the noise's
    autocovariance.

    Args:
        size: side of the patches.
        pixel: (dx, dy) in mm.
        spectrum: on the grid of :func:`fine_frequencies`, HU^2 mm^2.
    """
    fine = spectrum.shape[0]
    hann = _window(size)
    weight = hann[:, None] * hann
    lags = np.arange(-(size - 1), size)
    own = np.correlate(hann, hann, "full")
    product = np.fft.ifft2(spectrum).real[np.ix_(lags % fine, lags % fine)] * own[:, None] * own
    folded = np.zeros((size, size))
    np.add.at(folded, ((lags % size)[:, None], (lags % size)[None, :]), product)
    power = np.fft.fft2(folded).real
    plane = _plane(size)
    spectra = [np.fft.fft2(weight * shape) for shape, _ in plane]
    spread = [_convolved(share, spectrum) for _, share in plane]  # covariance of the noise with what is subtracted
    for n, own_spectrum in enumerate(spectra):
        power -= 2 * (own_spectrum.conj() * np.fft.fft2(weight * spread[n])).real
        for m, other in enumerate(spectra):
            power += (own_spectrum * other.conj()).real * np.sum(plane[m][1] * spread[n])
    return ring_means(power / np.sum(weight**2), size, pixel)


def _convolved(values: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Convolve ``values`` (k, k), zero outside, with the autocovariance that has the given spectrum; (k, k)."""
    size = values.shape[0]
    return np.fft.ifft2(np.fft.fft2(values, spectrum.shape) * spectrum).real[:size, :size]


def tissue_corners(
    hu_slice: np.ndarray, size: int, hu_range: tuple[float, float] = SOFT_TISSUE_HU, spacing: int | None = None
) -> np.ndarray:
    """Corners (n, 2) of the patches that lie wholly in soft tissue: every mean over 9 x 9 pixels is in ``hu_range``.

    Calmness plays no part in the choice, because a patch can be calm by chance.
    """
    hu = np.asarray(hu_slice)
    if min(hu.shape) < max(size, WINDOW):
        return np.zeros((0, 2), dtype=int)
    mean, _ = local_std(hu, WINDOW)
    inside = (mean >= hu_range[0]) & (mean <= hu_range[1]) & ~padding_mask(hu)
    total = np.pad(np.cumsum(np.cumsum(inside, axis=0), axis=1), ((1, 0), (1, 0)))
    step = spacing or max(1, size // SPACING)
    rows, columns = (np.arange(0, side - size + 1, step) for side in hu.shape)
    filled = (
        total[np.ix_(rows + size, columns + size)]
        - total[np.ix_(rows, columns + size)]
        - total[np.ix_(rows + size, columns)]
        + total[np.ix_(rows, columns)]
    )
    found = np.argwhere(filled == size * size)
    return np.stack([rows[found[:, 0]], columns[found[:, 1]]], axis=1)


def cut(hu_slice: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """The patches (n, k, k) at ``corners``."""
    view = np.lib.stride_tricks.sliding_window_view(np.asarray(hu_slice), (size, size))
    return view[corners[:, 0], corners[:, 1]]
