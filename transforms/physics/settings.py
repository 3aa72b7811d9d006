"""What determines the simulated noise: dose, photons, electronics, geometry, reconstruction filter, scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from .fbp import apodisation_window
from .geometry import FanBeam, Geometry, ParallelBeam, PixelSize

MU_WATER_PER_MM = 0.0192
"""Linear attenuation of water at 70 keV, the effective energy of 120 kVp, 1/mm."""
DEFAULT_INCIDENT_PHOTONS = 2e5
"""N0 if a scan gives none: of the order of a diagnostic body scan."""
DEFAULT_VIEWS = {"parallel": 720, "mayo": 1152}
"""Geometries by name, with their default number of views."""


@dataclass(frozen=True)
class DoseSettings:
    """What determines the inserted noise.

    Args:
        dose_fraction: a, above 0 and up to 1.
        incident_photons: N0, incident photons per channel and view at full dose: on the central ray if there is a bowtie
            filter, averaged over the views if the tube current is modulated. A channel of the parallel beam is as wide as the
            smaller pixel side (:meth:`ParallelBeam.for_image`), so N0 there depends on pixel size and number of views.
        electronic_variance: Ne, variance of the electronic noise, photons^2.
        apodisation: of the ramp filter, see :func:`~.fbp.apodisation_window`.
        cutoff: of the ramp filter, fraction of the detector's Nyquist frequency.
        kernel_gain: gain G(f) over the ramp at f = 0, step, 2 step ... of a measured kernel (:mod:`.kernel`); apodisation
            and cut-off then only describe the nearest filter. Empty: apodisation and cut-off define the filter.
        kernel_gain_step_per_mm: frequency step of ``kernel_gain``, 1/mm.
        views: number of angles; None takes the geometry's default, 720 or 1152. When you replace the geometry, replace both.
        mu_water_per_mm: attenuation of water, 1/mm.
        geometry: "parallel" (half a turn, fast) or "mayo" (:meth:`FanBeam.mayo`, a full turn).
        bowtie_mm: diameter of the water cylinder that the bowtie filter compensates for, mm; None: no bowtie filter.
        bowtie_strength: share of that cylinder's attenuation that it compensates for, 0 to 1.
        current_modulation: m, 0 to 1; the tube current of a view is proportional to exp(m * its largest line integral): 0
            is constant, 0.5 gives the least noise for the dose (Gies et al. 1999, Med Phys 26(11):2235).
        route: "formula" inserts Gaussian noise by the closed formula; "photon_counts" simulates photon counts and their
            logarithm, with photon-starvation correction (:mod:`.counts`).
        starvation_counts: photon-count simulation: where the local mean count is below this, counts are smoothed before the
            logarithm, fully below half of it (:func:`.counts.smooth_photon_starvation`); 0: never.
        starvation_channels: photon-count simulation: number of channels that are averaged, odd.
        starvation_views: photon-count simulation: number of views that are averaged, odd.
        floor_counts: photon-count simulation: smaller counts are raised to this.

    Raises:
        ValueError: if a value is outside its range.

    >>> DoseSettings(geometry="mayo").views
    1152
    """

    dose_fraction: float = 0.25
    incident_photons: float = 2e5
    electronic_variance: float = 0.0
    apodisation: str = "hann"
    cutoff: float = 1.0
    views: int | None = None
    mu_water_per_mm: float = MU_WATER_PER_MM
    geometry: str = "parallel"
    bowtie_mm: float | None = None
    bowtie_strength: float = 0.5
    current_modulation: float = 0.0
    route: str = "formula"
    starvation_counts: float = 600.0
    starvation_channels: int = 7
    starvation_views: int = 3
    floor_counts: float = 1.0
    kernel_gain: tuple[float, ...] = ()
    kernel_gain_step_per_mm: float = 0.0

    def __post_init__(self) -> None:
        check_noise_model(self.dose_fraction, self.incident_photons, self.electronic_variance)
        apodisation_window(np.zeros(1), self.apodisation, self.cutoff)
        if self.geometry not in DEFAULT_VIEWS:
            raise ValueError(f"Expected a geometry from {', '.join(DEFAULT_VIEWS)}, but got {self.geometry!r}.")
        if self.views is None:
            object.__setattr__(self, "views", DEFAULT_VIEWS[self.geometry])
        if self.views is None or self.views < 1:
            raise ValueError(f"Expected 1 or more views but got {self.views}. 720 is enough for 512 x 512 pixels.")
        if not (math.isfinite(self.mu_water_per_mm) and self.mu_water_per_mm > 0):
            raise ValueError(
                f"Expected mu_water_per_mm above 0 but got {self.mu_water_per_mm}. Usual: 0.0192 (70 keV)."
            )
        object.__setattr__(self, "kernel_gain", tuple(float(value) for value in self.kernel_gain))
        if self.kernel_gain and not (
            len(self.kernel_gain) > 1
            and all(math.isfinite(value) and value >= 0 for value in self.kernel_gain)
            and math.isfinite(self.kernel_gain_step_per_mm)
            and self.kernel_gain_step_per_mm > 0
        ):
            raise ValueError(
                "Expected a kernel_gain of two or more finite values of 0 or more, and its step above 0 / mm, but got "
                f"{len(self.kernel_gain)} values from {min(self.kernel_gain):g} to {max(self.kernel_gain):g} and a step of "
                f"{self.kernel_gain_step_per_mm:g} / mm."
            )
        self._check_scanner()

    def _check_scanner(self) -> None:
        if self.bowtie_mm is not None and not (math.isfinite(self.bowtie_mm) and self.bowtie_mm > 0):
            raise ValueError(f"Expected bowtie_mm above 0, or None for no bowtie filter, but got {self.bowtie_mm}.")
        if not 0 <= self.bowtie_strength <= 1 or not 0 <= self.current_modulation <= 1:
            raise ValueError(
                "Expected bowtie_strength and current_modulation between 0 and 1 but got "
                f"{self.bowtie_strength} and {self.current_modulation}."
            )
        if self.route not in {"formula", "photon_counts"}:
            raise ValueError(f"Expected the route formula or photon_counts but got {self.route!r}.")
        if not (math.isfinite(self.starvation_counts) and self.starvation_counts >= 0):
            raise ValueError(
                f"Expected starvation_counts of 0 or more photons but got {self.starvation_counts}. Usual: 600."
            )
        if not (math.isfinite(self.floor_counts) and self.floor_counts > 0):
            raise ValueError(f"Expected floor_counts above 0 photons but got {self.floor_counts}. Usual: 1.")
        if (
            min(self.starvation_channels, self.starvation_views) < 1
            or not self.starvation_channels % 2 & self.starvation_views % 2
        ):
            raise ValueError(
                f"Expected odd starvation_channels and starvation_views but got {self.starvation_channels} and {self.starvation_views}."
            )

    def rays(self, shape: tuple[int, int], pixel_mm: PixelSize) -> Geometry:
        """Rays that measure a slice of (nx, ny) pixels of (dx, dy) mm.

        >>> DoseSettings(views=90).rays((64, 64), (1.0, 1.0))
        ParallelBeam(views=90, channels=93, channel_spacing_mm=1.0)
        """
        views = int(self.views or DEFAULT_VIEWS[self.geometry])
        return FanBeam.mayo(views) if self.geometry == "mayo" else ParallelBeam.for_image(shape, pixel_mm, views)


def check_noise_model(dose_fraction: float, incident_photons: float, electronic_variance: float) -> None:
    """Raise a ValueError for a dose fraction, photons or an electronic variance outside its range."""
    if not isinstance(dose_fraction, Real) or not 0 < dose_fraction <= 1:
        raise ValueError(
            f"Expected a dose fraction above 0 and up to 1 but got {dose_fraction!r}. Quarter dose is 0.25, not 25."
        )
    if not (math.isfinite(incident_photons) and incident_photons > 0):
        raise ValueError(
            f"Expected photons above 0 but got {incident_photons}. Usual: 1e5 to 1e6 per channel and view."
        )
    if not (math.isfinite(electronic_variance) and electronic_variance >= 0):
        raise ValueError(
            f"Expected electronic_variance of 0 or more photons^2 but got {electronic_variance}. Usual: 100."
        )


def relative_incident_photons(line_integral: np.ndarray, geometry: Geometry, settings: DoseSettings) -> np.ndarray:
    """Incident photons relative to N0, of each ray: bowtie filter and tube-current modulation.

    At distance t from the isocentre, the bowtie filter adds the share s of the water that a cylinder of diameter B lacks
    there compared with its centre: ``exp(-s mu_w (B - sqrt(B^2 - 4 t^2)))``, constant beyond its rim. The tube current of a
    view is proportional to ``exp(m max(p))``, with mean 1 over the views.

    Args:
        line_integral: p, (views, channels).
        geometry: the rays.
        settings: bowtie filter, current modulation and attenuation of water.

    Returns:
        float64, no unit: (views, channels), with length 1 along an axis on which it does not depend.

    >>> beam = ParallelBeam(views=2, channels=3, channel_spacing_mm=100.0)
    >>> relative_incident_photons(np.array([[0, 2.0, 0], [0, 4.0, 0]]), beam, DoseSettings(current_modulation=0.5)).round(3)
    array([[0.538],
           [1.462]])
    >>> relative_incident_photons(np.zeros((2, 3)), beam, DoseSettings(bowtie_mm=200.0, bowtie_strength=1.0)).round(3)
    array([[0.021, 1.   , 0.021]])
    """
    relative = np.ones((1, 1))
    if settings.bowtie_mm is not None:
        chord = np.sqrt(np.maximum(settings.bowtie_mm**2 - 4 * geometry.positions_mm**2, 0))
        relative = np.exp(-settings.bowtie_strength * settings.mu_water_per_mm * (settings.bowtie_mm - chord))[None]
    if settings.current_modulation > 0:
        largest = np.max(line_integral, axis=1, keepdims=True).astype(np.float64)
        current = np.exp(settings.current_modulation * (largest - largest.max()))
        relative = relative * (current / current.mean())
    return relative
