"""Noise of any kernel from one reconstruction: a ramp on an oversampled detector, followed by a gain in image space.

A gain G(f) over the ramp describes what no apodisation can: kernels that end below Nyquist, kernels that enhance edges, and
measured kernels. The loss by sampling (linear interpolation between channels, the pixel grid) is known and compensated.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import numpy as np
from scipy import fft

from .geometry import FanBeam, Geometry, PixelSize

BAND = 1.5
"""The reconstruction's window ends at this multiple of the image's Nyquist frequency, beyond its corner frequencies."""
OFF_CENTRE_MM = 90.0
"""Typical distance of tissue from the isocentre, where the rays of a fan are closer together on the source's side
and farther apart on the other."""
LEAST_RESPONSE = 0.04
"""The loss by sampling is compensated only down to this share of the power: below it, what remains is aliased."""


def oversampled(geometry: Geometry, pixel: PixelSize) -> tuple[Geometry, int]:
    """Detector that resolves the corners of the image's frequency plane, and its channels per channel of ``geometry``.

    >>> from .geometry import ParallelBeam
    >>> oversampled(ParallelBeam(8, 9, 1.0), (1.0, 1.0))
    (ParallelBeam(views=8, channels=18, channel_spacing_mm=0.5), 2)
    """
    factor = max(1, math.ceil(math.sqrt(2) * geometry.isocentre_spacing_mm / min(pixel) - 1e-6))
    spacing = geometry.channel_spacing_mm / factor
    return dataclasses.replace(geometry, channels=geometry.channels * factor, channel_spacing_mm=spacing), factor


def apodisation_of(geometry: Geometry, pixel: PixelSize) -> tuple[str, float]:
    """Apodisation and cut-off (fraction of the detector's Nyquist frequency) of the noise given to :func:`shape_noise`."""
    return "cosine", BAND * geometry.isocentre_spacing_mm / min(pixel)


_FREQUENCIES = 96


@lru_cache(maxsize=32)
def sampling_response(pixel: PixelSize, spacing: float, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of the ramp ``|f|`` that sampling leaves in a reconstruction's noise power, by frequency.

    Args:
        pixel: (dx, dy) in mm.
        spacing: channel spacing at the isocentre, mm.
        stretch: how much closer together or farther apart rays are than at the isocentre, as a fraction; 0 for parallel
            beams.

    Returns:
        (96,) frequencies up to the corner of the frequency plane, 1/mm, and (96,) power over ``|f|``, averaged over
        directions: window, interpolation between channels, and aliasing by the pixel grid.
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
    """Shape noise that was reconstructed with :func:`apodisation_of` so that its spectrum is ``G^2(f) |f|``.

    Args:
        noise: (x, y), HU.
        pixel: (dx, dy) in mm.
        geometry: of the reconstruction.
        gain: G at f = 0, step, 2 step ...; interpolated linearly, constant beyond the last value.
        step_per_mm: frequency step of ``gain``, 1/mm.

    Returns:
        (x, y) float32, HU.
    """
    nx, ny = noise.shape
    # The gain's kernel is a few pixels long; the margin keeps it from wrapping around.
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
