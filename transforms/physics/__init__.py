"""CT physics: geometry, projection, filtered back projection, dose reduction by noise insertion and its calibration.

Slices are arrays (x, y), volumes (x, y, z), in HU; pixel sizes are (dx, dy) in mm; sinograms are (views, channels).
"""

from .calibration import Calibration, calibrate_incident_photons
from .counts import line_integrals_of_counts, smooth_photon_starvation
from .dose import (
    added_noise_variance,
    check_hu,
    hu_to_attenuation,
    insert_noise,
    noise_image,
    slice_generator,
)
from .fbp import APODISATIONS, Apodisation, back_project, fbp, filter_sinogram, ramp_filter
from .geometry import FanBeam, Geometry, ParallelBeam, PixelSize, check_pixel_size
from .noise_estimate import NoiseEstimate, NoNoiseError, measure_noise
from .noise_spectrum import NoiseSpectrum, SpectrumError, read_spectrum
from .phantom import (
    Ellipse,
    low_contrast_phantom,
    phantom_hu,
    phantom_line_integrals,
    resolution_phantom,
    water_cylinder,
)
from .projector import project
from .settings import DEFAULT_INCIDENT_PHOTONS, MU_WATER_PER_MM, DoseSettings, relative_incident_photons

__all__ = [
    "APODISATIONS",
    "DEFAULT_INCIDENT_PHOTONS",
    "MU_WATER_PER_MM",
    "Apodisation",
    "Calibration",
    "DoseSettings",
    "Ellipse",
    "FanBeam",
    "Geometry",
    "NoNoiseError",
    "NoiseEstimate",
    "NoiseSpectrum",
    "ParallelBeam",
    "PixelSize",
    "SpectrumError",
    "added_noise_variance",
    "back_project",
    "calibrate_incident_photons",
    "check_hu",
    "check_pixel_size",
    "fbp",
    "filter_sinogram",
    "hu_to_attenuation",
    "insert_noise",
    "line_integrals_of_counts",
    "low_contrast_phantom",
    "measure_noise",
    "noise_image",
    "phantom_hu",
    "phantom_line_integrals",
    "project",
    "ramp_filter",
    "read_spectrum",
    "relative_incident_photons",
    "resolution_phantom",
    "slice_generator",
    "smooth_photon_starvation",
    "water_cylinder",
]
