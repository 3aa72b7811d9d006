"""The noise that the dose model expects at full dose in slices of a scan: what calibration compares the scan with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .dose import hu_to_attenuation
from .fbp import back_project, fbp
from .geometry import PixelSize
from .projector import project
from .settings import DoseSettings, relative_incident_photons

DEFAULT_INCIDENT_PHOTONS = 2e5
"""N0 when a scan shows none: of the order of a diagnostic body scan."""
WINDOW = 9
"""Side of the windows whose deviations are compared, pixels."""


@dataclass(frozen=True)
class ScanSlice:
    """A slice (x, y) in HU, the windows to measure in, and its noise-only sinograms (views, channels) at N0 = 1.

    ``quantum`` has the variance e^p, ``electronic`` e^(2p): that of Ne = 1; with bowtie filter and modulated current, e^p
    stands for e^p over the ray's relative photons. ``level`` (x, y) is how the model's noise varies over the slice, in
    arbitrary units: the variances of the rays through each pixel, summed. Drawn noise would not do: its own local level,
    divided by a map that was smoothed from it, varies less than a scan's.
    """

    hu: np.ndarray
    windows: np.ndarray
    level: np.ndarray
    quantum: np.ndarray
    electronic: np.ndarray


class NoiseModel:
    """The noise that the model expects in the chosen slices at full dose."""

    def __init__(self, shape: tuple[int, int], pixel: PixelSize, settings: DoseSettings) -> None:
        self.shape, self.pixel, self.settings = shape, pixel, settings
        self.geometry = settings.rays(shape, pixel)

    def prepare(self, hu: np.ndarray, windows: np.ndarray, rng: np.random.Generator) -> ScanSlice:
        """Project a slice (x, y), HU, and draw its noise-only sinograms."""
        attenuation = hu_to_attenuation(hu, self.settings.mu_water_per_mm)
        line_integral = project(attenuation, self.pixel, self.geometry)
        deviate = rng.standard_normal(line_integral.shape, dtype=np.float32)
        relative = relative_incident_photons(line_integral, self.geometry, self.settings)
        variance = (np.exp(line_integral) / relative).astype(np.float32)
        level = np.sqrt(np.maximum(back_project(variance, self.geometry, self.shape, self.pixel), 1e-12))
        return ScanSlice(hu, windows, level, deviate * np.sqrt(variance), deviate * variance)

    def noise(
        self, sinogram: np.ndarray, cutoff: float | None, reference: float = DEFAULT_INCIDENT_PHOTONS
    ) -> np.ndarray:
        """Noise (x, y), HU, of ``reference`` photons; ``cutoff`` None keeps the filter of the settings."""
        name = self.settings.apodisation if cutoff is None else "hann"
        cutoff = cutoff or self.settings.cutoff
        image = fbp(sinogram, self.geometry, self.shape, self.pixel, apodisation=name, cutoff=cutoff)
        return image * (1000 / self.settings.mu_water_per_mm / math.sqrt(reference))
