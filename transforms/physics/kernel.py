"""Noise of any kernel from one reconstruction: that of a ramp on an oversampled detector, then a gain in image space.

A gain G(f) over the ramp reaches what no apodisation does: kernels that end below Nyquist, enhance edges, or anything that was
measured. What sampling takes away (linear interpolation between channels, the pixel grid) is known and made up for.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import numpy as np
from scipy import fft

from .geometry import FanBeam, Geometry, PixelSize

BAND = 1.5
"""The reconstruction's window ends at this multiple of the image's Nyquist frequency: beyond its corners."""
OFF_CENTRE_MM = 90.0
"""Usual distance of tissue from the isocentre: there, rays of a fan lie closer on the source's side and farther on the other."""
LEAST_RESPONSE = 0.04
"""Where sampling leaves less of the power than this, nothing is made up for: what is there is aliased."""


def oversampled(geometry: Geometry, pixel: PixelSize) -> tuple[Geometry, int]:
    """A detector whose channels resolve the corners of an image's frequencies, and how many fit into one of ``geometry``.

    >>> from .geometry import ParallelBeam
    >>> oversampled(ParallelBeam(8, 9, 1.0), (1.0, 1.0))
    (ParallelBeam(views=8, channels=18, channel_spacing_mm=0.5), 2)
    """
    factor = max(1, math.ceil(math.sqrt(2) * geometry.isocentre_spacing_mm / min(pixel) - 1e-6))
    spacing = geometry.channel_spacing_mm / factor
    return dataclasses.replace(geometry, channels=geometry.channels * factor, channel_spacing_mm=spacing), factor


def apodisation_of(geometry: Geometry, pixel: PixelSize) -> tuple[str, float]:
    """Apodisation and cut-off (fraction of the detector's Nyquist frequency) of the reconstruction that is shaped afterwards."""
    return "cosine", BAND * geometry.isocentre_spacing_mm / min(pixel)


_FREQUENCIES = 96


@lru_cache(maxsize=32)
def sampling_response(pixel: PixelSize, spacing: float, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (96,) 1/mm up to the image's corner, and the share of ``|f|`` that a reconstruction's noise has there.

    Args:
        pixel: (dx, dy) in mm.
        spacing: of the channels at the isocentre, mm.
        stretch: how much closer or farther rays lie than at the isocentre, as a fraction; 0 for parallel beams.

    Returns:
        Frequencies, and the power over ``|f|``: window, interpolation between channels, and what the grid folds back; mean over
        directions.
    """
    x, y = np.meshgrid(*(np.fft.fftfreq(128, side) for side in pixel), indexing="ij")
    copies = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij")).reshape(2, -1)
    radius = np.hypot(x[..., None] + copies[0] / pixel[0], y[..., None] + copies[1] / pixel[1])
    nyquist = 0.5 / spacing
    power = np.zeros_like(radius)
    stretches = 1 + stretch * np.cos(np.pi * (np.arange(8) + 0.5) / 8) if stretch else np.ones(1)
    for scale in stretches:
        seen = radius * scale
        folded = np.abs((seen + nyquist) % (2 * nyquist) - nyquist)  # the filtered views are periodic
        window = np.cos(np.pi / 2 * np.minimum(folded * 2 * min(pixel) / BAND, 1))
        power += (folded * window) ** 2 / np.maximum(seen, 1e-9) / scale * np.sinc(seen * spacing) ** 4
    power /= len(stretches)
    total, own = power.sum(axis=2).ravel(), np.hypot(x, y).ravel()
    step = math.hypot(0.5 / pixel[0], 0.5 / pixel[1]) / (_FREQUENCIES - 1)
    place = np.rint(own / step).astype(int)
    ramp = np.bincount(place, weights=own, minlength=_FREQUENCIES)
    response = np.bincount(place, weights=total, minlength=_FREQUENCIES) / np.maximum(ramp, 1e-12)
    response[ramp == 0] = 1.0
    return np.arange(_FREQUENCIES) * step, response


def shape_noise(
    noise: np.ndarray, pixel: PixelSize, geometry: Geometry, gain: np.ndarray, step_per_mm: float
) -> np.ndarray:
    """Noise of a reconstruction as with :func:`apodisation_of`, given the spectrum ``G^2(f) |f|``.

    Args:
        noise: (x, y), HU.
        pixel: (dx, dy) in mm.
        geometry: of the reconstruction.
        gain: G at f = 0, step, 2 step ...; linear between, the last value beyond.
        step_per_mm: 1/mm.

    Returns:
        (x, y) float32, HU.
    """
    nx, ny = noise.shape
    # The gain's kernel is a few pixels long; the margin keeps it from reaching around.
    sides = [fft.next_fast_len(side + 16, real=True) for side in (nx, ny)]
    radius = np.hypot(np.fft.fftfreq(sides[0], pixel[0])[:, None], np.fft.rfftfreq(sides[1], pixel[1])[None, :])
    stretch = OFF_CENTRE_MM / geometry.source_isocentre_mm if isinstance(geometry, FanBeam) else 0.0
    frequency, response = sampling_response(pixel, round(geometry.isocentre_spacing_mm, 9), stretch)
    table = np.interp(frequency, np.arange(len(gain)) * step_per_mm, gain) / np.sqrt(
        np.maximum(response, LEAST_RESPONSE)
    )
    spectrum = fft.rfft2(np.asarray(noise, dtype=np.float32), sides)
    spectrum *= np.interp(radius, frequency, table).astype(np.float32)
    return fft.irfft2(spectrum, sides)[:nx, :ny].astype(np.float32, copy=False)
