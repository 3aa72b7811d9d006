"""How noise varies over a slice: the mean variance of the rays through each pixel, for N0 = 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .dose import hu_to_attenuation
from .fbp import back_project
from .geometry import ParallelBeam, PixelSize
from .projector import project
from .settings import DoseSettings, relative_incident_photons

LEAST_SIDE = 128
"""Slices are reduced towards this many pixels per side, because the variance varies slowly."""
VIEWS = 90


class RayNoise(NamedTuple):
    """Mean over the rays through each pixel, (x, y) float64."""

    quantum: np.ndarray
    """``e^p / n``, where n is the incident photons over N0: the variance for N0 = 1."""
    electronic: np.ndarray
    """``(e^p / n)^2``: the variance for N0 = 1 and Ne = 1."""


def ray_noise(hu_slice: np.ndarray, pixel: PixelSize, settings: DoseSettings) -> RayNoise:
    """Mean variance of the rays through each pixel, for N0 = 1.

    Args:
        hu_slice: (x, y), HU.
        pixel: (dx, dy) in mm.
        settings: attenuation of water, bowtie filter and tube-current modulation.

    >>> flat = ray_noise(np.full((32, 32), -1000.0), (1.0, 1.0), DoseSettings())
    >>> flat.quantum.round(3)[16, 16], flat.electronic.shape
    (np.float64(1.0), (32, 32))
    """
    shape = hu_slice.shape
    step = max(1, min(shape) // LEAST_SIDE)
    sides = [-(-side // step) * step for side in shape]
    padded = np.pad(np.asarray(hu_slice, dtype=np.float64), [(0, a - b) for a, b in zip(sides, shape)], mode="edge")
    coarse = padded.reshape(sides[0] // step, step, sides[1] // step, step).mean(axis=(1, 3))
    coarse_pixel = (pixel[0] * step, pixel[1] * step)
    beam = ParallelBeam.for_image((coarse.shape[0], coarse.shape[1]), coarse_pixel, VIEWS)
    line_integral = project(hu_to_attenuation(coarse, settings.mu_water_per_mm), coarse_pixel, beam)
    variance = np.exp(line_integral.astype(np.float64)) / relative_incident_photons(line_integral, beam, settings)
    maps = []
    for values in (variance, variance**2):
        mean = back_project(values.astype(np.float32), beam, (coarse.shape[0], coarse.shape[1]), coarse_pixel) / np.pi
        fine = np.repeat(np.repeat(np.maximum(mean, 1e-12), step, axis=0), step, axis=1)
        maps.append(fine[: shape[0], : shape[1]].astype(np.float64))
    return RayNoise(*maps)
