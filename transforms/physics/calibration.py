"""Calibration of the dose simulation to a scan: photons and kernel, measured in its soft tissue.

A lower dose adds sqrt((1 - a) / a) times the scan's own noise, with the same spectrum. Level and spectrum are measured with
anatomy removed (:mod:`.noise_estimate`): the spectrum gives the gain of the scan's kernel over a ramp (:mod:`.kernel`), and
the level at low frequencies, where every kernel leaves the ramp unchanged, gives the photons.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .dose import check_hu
from .electronics import MOST_OF_QUANTUM
from .fbp import apodisation_window
from .geometry import Geometry, PixelSize, check_pixel_size
from .noise_estimate import NoiseEstimate, NoNoiseError, measure_noise, plane
from .noise_spectrum import NoiseSpectrum
from .ray_noise import ray_noise
from .settings import DEFAULT_INCIDENT_PHOTONS, DoseSettings

GAIN_FLOOR = 1e-3
"""Gains below this fraction of the largest are raised to it: beyond a kernel's cut-off their logarithm is meaningless."""
CUTOFFS = np.exp(np.linspace(math.log(0.1), math.log(8.0), 120))
"""Hann cut-offs, as fractions of Nyquist, with which a kernel is compared in order to describe it."""
FEW_PATCHES = 6
"""With fewer patches the spectrum is uncertain, and the calibration's ``reason`` says so."""


@dataclass(frozen=True)
class Calibration:
    """What was measured in a scan and what follows from it. Frequencies are means of |f| over the noise power spectrum.

    ``method`` is "image" (measured in the scan), "tags" (from acquisition tags), "user" (photons given by the user) or
    "default" (``reason`` says why nothing better was possible; the filter is that of the settings).
    """

    incident_photons: float
    """N0 per channel and view, for the geometry of the settings."""
    noise_hu: float
    """The scan's own noise in soft tissue, standard deviation, HU; NaN if not measured."""
    method: str
    apodisation: str
    cutoff: float
    """Of the ramp filter, fraction of Nyquist. With a ``kernel_gain``, apodisation and cut-off describe the nearest
    filter."""
    reason: str = ""
    """Why something could not be measured; empty if everything was."""
    scan_frequency_per_mm: float = math.nan
    added_frequency_per_mm: float = math.nan
    """Mean frequency of the model's noise with the chosen filter."""
    windows: int = 0
    patches: int = 0
    slices: tuple[int, ...] = ()
    kernel_gain: tuple[float, ...] = ()
    """Gain G(f) over the ramp at f = 0, step, 2 step ...; empty if ``apodisation`` and ``cutoff`` define the filter."""
    kernel_gain_step_per_mm: float = 0.0
    electronic_variance: float | None = None
    """Ne, photons^2, if the calibration determined it; None keeps that of the settings."""
    noise_error: float = math.nan
    """Standard error of ``noise_hu``, relative."""
    frequency_error: float = math.nan
    """Standard error of ``scan_frequency_per_mm``, relative."""
    anatomy_share: float = math.nan
    """Share of the variance in the patches that was identified as anatomy and removed, 0 to 1."""
    spectrum_step_per_mm: float = 0.0
    scan_power: tuple[float, ...] = ()
    """The scan's noise power spectrum at f = 0, step, 2 step ..., HU^2 mm^2."""
    spectrum_source: str = ""
    """Where the spectrum is from: "scan", or the user's file."""

    def apply(self, settings: DoseSettings) -> DoseSettings:
        """``settings`` with the calibrated photons and filter."""
        electronic = settings.electronic_variance if self.electronic_variance is None else self.electronic_variance
        return dataclasses.replace(
            settings,
            incident_photons=self.incident_photons,
            apodisation=self.apodisation,
            cutoff=self.cutoff,
            kernel_gain=self.kernel_gain,
            kernel_gain_step_per_mm=self.kernel_gain_step_per_mm,
            electronic_variance=electronic,
        )


def calibrate_incident_photons(
    hu_volume: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    seed: int,
    max_slices: int = 5,
    *,
    match_spectrum: bool = True,
    spectrum: NoiseSpectrum | None = None,
    usual_electronics: float | None = None,
) -> Calibration:
    """Find N0 and the kernel with which the model's full-dose noise matches the scan's own, in level and spectrum.

    No noise is reconstructed: what a ramp filter gives for the rays through the patches is known in closed form. The dose
    fraction plays no part: noise added later for any a has the right ratio. With electronic noise, N0 is chosen so that
    quantum and electronic noise together give the measured level.

    Args:
        hu_volume: (x, y, z), HU, at full dose.
        pixel_mm: (dx, dy) in mm.
        settings: electronic variance, views, attenuation of water; the filter if the spectrum is not matched.
        seed: unused, kept for compatibility; 0 or above.
        max_slices: most slices used, spread over those with most soft tissue.
        match_spectrum: False keeps the filter of the settings.
        spectrum: noise spectrum of the scan as measured by the user; only the level is then measured here.
        usual_electronics: typical Ne, photons^2, used instead of that of the settings, and reduced where it would exceed a
            small share of the full-dose noise (:data:`.electronics.MOST_OF_QUANTUM`).

    Returns:
        The calibration. If there is no uniform tissue or no noise, ``method`` is "default" and ``reason`` says why.

    Raises:
        ValueError: for what :func:`~.dose.check_hu` refuses, a missing pixel size, or a bad ``max_slices`` or ``seed``.
    """
    hu = check_hu(hu_volume, axes=3)
    pixel = check_pixel_size(pixel_mm)
    if max_slices < 1 or seed < 0:
        raise ValueError(f"Expected max_slices of 1 or more and a seed of 0 or more but got {max_slices} and {seed}.")
    shape = None
    if spectrum is not None:
        shape = spectrum.log_gain(plane(pixel)[0])
    elif not match_spectrum:
        shape = _log_gain_of_filter(settings, pixel)
    try:
        found = measure_noise(
            hu,
            pixel,
            settings=settings,
            max_slices=max_slices,
            log_shape=None if shape is None else (plane(pixel)[0], shape),
        )
    except NoNoiseError as error:
        return _default(settings, str(error))
    keeps_filter = spectrum is None and not match_spectrum
    electronic = None
    if usual_electronics is not None:
        electronic = _usual(found, settings, usual_electronics, settings.rays((64, 64), pixel))
        settings = dataclasses.replace(settings, electronic_variance=electronic)
    calibration = _calibration(found, pixel, settings, keeps_filter=keeps_filter, spectrum=spectrum)
    return dataclasses.replace(calibration, electronic_variance=electronic)


def _usual(found: NoiseEstimate, settings: DoseSettings, usual: float, beam: Geometry) -> float:
    """Ne: the typical value, at most a small share of the quantum noise."""
    alone = dataclasses.replace(settings, electronic_variance=0.0)
    photons = _photons(found.ray_noise, float(found.log_gain[0]), beam, alone)
    quantum, electronic = found.ray_noise
    return float(f"{min(usual, MOST_OF_QUANTUM * photons * quantum / electronic):.4g}")


def calibrate_from_spectrum(
    hu_volume: np.ndarray, pixel_mm: PixelSize, settings: DoseSettings, spectrum: NoiseSpectrum, reason: str
) -> Calibration:
    """Derive N0 and the kernel from a spectrum alone, level included, for scans in which nothing can be measured.

    Args:
        hu_volume: (x, y, z), HU; the spectrum is assumed to hold for the most attenuated quarter of its middle slice.
        pixel_mm: (dx, dy) in mm.
        settings: geometry, electronic noise.
        spectrum: as measured by the user.
        reason: why the scan's own noise is not used.
    """
    pixel = check_pixel_size(pixel_mm)
    frequency, area = plane(pixel)
    log_gain = spectrum.log_gain(frequency)
    rays = ray_noise(hu_volume[..., hu_volume.shape[2] // 2], pixel, settings)
    inside = rays.quantum >= np.quantile(rays.quantum, 0.75)
    power = frequency * np.exp(log_gain)
    total = float((area * power).sum())
    mean = float((area * power * frequency).sum() / total)
    gain = np.exp((log_gain - log_gain[0]) / 2)
    step = float(frequency[1])
    own = (float(rays.quantum[inside].mean()), float(rays.electronic[inside].mean()))
    return Calibration(
        incident_photons=_photons(own, float(log_gain[0]), settings.rays((64, 64), pixel), settings),
        noise_hu=math.sqrt(total),
        method="image",
        apodisation="hann",
        cutoff=_nearest_hann(power, pixel),
        reason=f"{reason}; level and spectrum of {spectrum.source}",
        scan_frequency_per_mm=mean,
        added_frequency_per_mm=mean,
        kernel_gain=tuple(np.round(np.maximum(gain, GAIN_FLOOR * gain.max()), 6).tolist()),
        kernel_gain_step_per_mm=step,
        spectrum_step_per_mm=step,
        scan_power=tuple(float(f"{value:.5g}") for value in power),
        spectrum_source=spectrum.source,
    )


def _default(settings: DoseSettings, reason: str) -> Calibration:
    return Calibration(
        incident_photons=DEFAULT_INCIDENT_PHOTONS,
        noise_hu=math.nan,
        method="default",
        apodisation=settings.apodisation,
        cutoff=settings.cutoff,
        reason=f"{reason}; default of {DEFAULT_INCIDENT_PHOTONS:g} photons",
    )


def _calibration(
    found: NoiseEstimate,
    pixel: PixelSize,
    settings: DoseSettings,
    *,
    keeps_filter: bool,
    spectrum: NoiseSpectrum | None,
) -> Calibration:
    step = float(found.frequency_per_mm[1])
    reasons = []
    if keeps_filter:
        reasons.append("spectrum not asked for")
    if len(found.corners) < FEW_PATCHES:
        reasons.append(f"only {len(found.corners)} patches of soft tissue: level and spectrum are uncertain")
    photons = _photons(found.ray_noise, float(found.log_gain[0]), settings.rays((64, 64), pixel), settings)
    gain = np.exp((found.log_gain - found.log_gain[0]) / 2)
    gain = np.maximum(gain, GAIN_FLOOR * gain.max())
    name, cutoff = settings.apodisation, settings.cutoff
    if not keeps_filter:
        name, cutoff = "hann", _nearest_hann(found.power, pixel)
    return Calibration(
        incident_photons=photons,
        noise_hu=found.level_hu,
        method="image",
        apodisation=name,
        cutoff=cutoff,
        reason="; ".join(reasons),
        scan_frequency_per_mm=found.mean_frequency_per_mm,
        added_frequency_per_mm=found.mean_frequency_per_mm,
        windows=found.windows,
        patches=len(found.corners),
        slices=found.slices,
        kernel_gain=() if keeps_filter else tuple(np.round(gain, 6).tolist()),
        kernel_gain_step_per_mm=0.0 if keeps_filter else step,
        noise_error=found.level_error,
        frequency_error=found.frequency_error,
        anatomy_share=found.anatomy_share,
        spectrum_step_per_mm=step,
        scan_power=tuple(float(f"{value:.5g}") for value in found.power),
        spectrum_source="scan" if spectrum is None else spectrum.source,
    )


def _photons(ray_noise: tuple[float, float], log_gain: float, beam: Geometry, settings: DoseSettings) -> float:
    """N0 with which quantum and electronic noise together have the measured level at low frequencies.

    A reconstruction from M views over half a turn and channels d apart has the noise spectrum ``pi d / M |f|`` times the
    mean variance of the rays; M views over a full turn give the same.
    """
    per_variance = math.pi * beam.isocentre_spacing_mm / beam.views * (1000 / settings.mu_water_per_mm) ** 2
    quantum, electronic = ray_noise
    without = per_variance * quantum / math.exp(log_gain)
    excess = settings.electronic_variance * electronic / quantum
    return float(without / 2 * (1 + math.sqrt(1 + 4 * excess / without)))


def _log_gain_of_filter(settings: DoseSettings, pixel: PixelSize) -> np.ndarray:
    """Log of noise power over the ramp's, reconstructed with the filter of the settings, interpolation included."""
    beam = settings.rays((64, 64), pixel)
    frequency = plane(pixel)[0]
    return _log_gain_of_window(frequency, settings.apodisation, settings.cutoff, beam.isocentre_spacing_mm)


def _log_gain_of_window(frequency: np.ndarray, name: str, cutoff: float, spacing: float) -> np.ndarray:
    nyquist = 0.5 / spacing
    window = apodisation_window(np.minimum(frequency / nyquist, 1), name, cutoff) * (frequency <= nyquist)
    power = window**2 * np.sinc(frequency * spacing) ** 4
    return np.log(np.maximum(power, GAIN_FLOOR**2))


def _nearest_hann(power: np.ndarray, pixel: PixelSize) -> float:
    """Cut-off of the Hann window whose noise has the scan's mean frequency; only a description of the kernel."""
    frequency, area = plane(pixel)
    area = area * (frequency <= 0.5 / max(pixel))
    own = area * power
    mean = (own * frequency).sum() / own.sum()
    means = []
    for cutoff in CUTOFFS:
        density = area * frequency * np.exp(_log_gain_of_window(frequency, "hann", float(cutoff), min(pixel)))
        means.append((density * frequency).sum() / density.sum())
    return float(np.exp(np.interp(mean, means, np.log(CUTOFFS))))
