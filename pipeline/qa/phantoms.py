"""Scans of test phantoms at any dose: line integrals in closed form, noise for the dose, filtered back projection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.physics import ParallelBeam
from ct_cncl.transforms.physics.dose import added_noise_variance
from ct_cncl.transforms.physics.fbp import fbp
from ct_cncl.transforms.physics.phantom import (
    Ellipse,
    Ellipses,
    disc,
    phantom_line_integrals,
    resolution_phantom,
    water_cylinder,
)
from ct_cncl.transforms.physics.settings import MU_WATER_PER_MM

CONTRASTS_HU = (-800.0, -100.0, 50.0, 120.0, 340.0, 950.0)
"""Contrasts of the discs to water: about lung, fat, soft tissue, acrylic, polyoxymethylene and PTFE, as in common phantoms."""
LESIONS = ((4.0, 20.0), (6.0, 12.0), (10.0, 7.0))
"""Diameter, mm, and contrast, HU, of the low-contrast lesions."""
SITES = 12
"""Number of lesions in a slice, all at the same distance from the centre, where noise is alike; their kinds alternate."""
SITE_RADIUS = 0.5
"""That distance as a fraction of the phantom's radius."""
_TRIAL_INCIDENT_PHOTONS = 1e5


@dataclass(frozen=True)
class ScanSettings:
    """Settings for scanning phantoms.

    Attributes:
        size: pixels per side.
        pixel_mm: side of a pixel.
        radius_mm: radius of the water cylinder.
        noise_hu: standard deviation in its middle at full dose, which sets the number of incident photons.
        apodisation: apodisation of the ramp filter, see :mod:`ct_cncl.transforms.physics.fbp`.
        cutoff: cutoff of the ramp filter as a fraction of the Nyquist frequency.
        views: number of views over half a turn, parallel beam.
        seed: seed of all noise.

    Raises:
        ValueError: the phantom does not fit into the image, or a value is not above 0.
    """

    size: int = 320
    pixel_mm: float = 0.75
    radius_mm: float = 100.0
    noise_hu: float = 10.0
    apodisation: str = "hann"
    cutoff: float = 1.0
    views: int = 720
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.size, self.pixel_mm, self.radius_mm, self.noise_hu, self.views) <= 0:
            raise ValueError("Expected size, pixel, radius, noise and views above 0, but got a value that is not.")
        if 2 * self.radius_mm > 0.95 * self.size * self.pixel_mm:
            raise ValueError(
                f"Expected a phantom that fits into {self.size * self.pixel_mm:g} mm with air around it, but got a diameter of "
                f"{2 * self.radius_mm:g} mm. Use more or larger pixels."
            )


class Scanner:
    """Scans phantoms.

    Args:
        settings: settings of the scans.
    """

    def __init__(self, settings: ScanSettings) -> None:
        self.settings = settings
        self.pixel = (settings.pixel_mm, settings.pixel_mm)
        self.shape = (settings.size, settings.size)
        self.geometry = ParallelBeam.for_image(self.shape, self.pixel, settings.views)
        self.incident_photons = _TRIAL_INCIDENT_PHOTONS
        trial = self.noise(
            self.line_integrals(water_cylinder(settings.radius_mm)), 1.0, np.random.default_rng(settings.seed)
        )
        middle = self.disc_mask(0.0, 0.0, 0.4 * settings.radius_mm)
        self.incident_photons *= (float(trial[middle].std()) / settings.noise_hu) ** 2
        """Incident photons per detector element and view at full dose."""

    def line_integrals(self, phantom: Ellipses) -> np.ndarray:
        """Line integrals (views, detector elements) of a phantom in closed form, float32."""
        return phantom_line_integrals(phantom, self.geometry, MU_WATER_PER_MM).astype(np.float32)

    def clean(self, phantom: Ellipses) -> np.ndarray:
        """The scan without noise, (x, y) float32, HU: the reconstruction of exact line integrals."""
        return self._image(self.line_integrals(phantom)) - np.float32(1000)

    def scan(self, phantom: Ellipses, dose: float, slices: int, *, stream: int) -> np.ndarray:
        """Slices of one phantom with independent noise realizations, (x, y, slices) float32, HU.

        Args:
            phantom: ellipses in air.
            dose: dose fraction.
            slices: number of slices.
            stream: number of the random stream; another number gives other noise.
        """
        integrals = self.line_integrals(phantom)
        clean = self._image(integrals) - np.float32(1000)
        seeds = ((self.settings.seed, stream, round(1e6 * dose), k) for k in range(slices))
        return np.stack([clean + self.noise(integrals, dose, np.random.default_rng(one)) for one in seeds], axis=2)

    def noise(self, integrals: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
        """One noise realization of a slice, (x, y) float32, HU."""
        variance = added_noise_variance(
            integrals, dose_fraction=dose, incident_photons=self.incident_photons, noise_free=True
        )
        return self._image(
            np.sqrt(variance).astype(np.float32) * rng.standard_normal(integrals.shape, dtype=np.float32)
        )

    def _image(self, sinogram: np.ndarray) -> np.ndarray:
        settings = self.settings
        image = fbp(
            sinogram, self.geometry, self.shape, self.pixel, apodisation=settings.apodisation, cutoff=settings.cutoff
        )
        return image * np.float32(1000 / MU_WATER_PER_MM)

    def place(self, x_mm: float, y_mm: float) -> tuple[float, float]:
        """Position, in pixels from the centre of the first pixel, of a place given in mm from the middle of the image."""
        middle = (self.settings.size - 1) / 2
        return middle + x_mm / self.settings.pixel_mm, middle + y_mm / self.settings.pixel_mm

    def disc_mask(self, x_mm: float, y_mm: float, radius_mm: float) -> np.ndarray:
        """Mask (x, y) of the pixels whose centre lies in a circle."""
        x, y = self.place(x_mm, y_mm)
        axis = np.arange(self.settings.size)
        return np.hypot(axis[:, None] - x, axis[None, :] - y) <= radius_mm / self.settings.pixel_mm


def water(scanner: Scanner) -> list[Ellipse]:
    """Phantom of water alone, for noise and as the background of lesions."""
    return water_cylinder(scanner.settings.radius_mm)


def discs(scanner: Scanner) -> list[Ellipse]:
    """Phantom of water with a disc of every contrast, for task transfer and linearity."""
    return resolution_phantom(scanner.settings.radius_mm, CONTRASTS_HU)


def sites(scanner: Scanner) -> list[tuple[int, int]]:
    """Centre pixels of the lesions, rounded to integers, so that every region shows its lesion at the same place."""
    radius = SITE_RADIUS * scanner.settings.radius_mm
    turns = [2 * math.pi * k / SITES for k in range(SITES)]
    places = [scanner.place(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]
    return [(round(x), round(y)) for x, y in places]


def lesions(scanner: Scanner) -> list[Ellipse]:
    """Phantom of water with lesions at all sites, alternating between those of ``LESIONS``."""
    middle, pixel = (scanner.settings.size - 1) / 2, scanner.settings.pixel_mm
    found = water(scanner)
    for k, (x, y) in enumerate(sites(scanner)):
        diameter, contrast = LESIONS[k % len(LESIONS)]
        found.append(disc((x - middle) * pixel, (y - middle) * pixel, diameter / 2, contrast))
    return found
