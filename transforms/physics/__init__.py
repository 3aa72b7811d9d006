"""CT physics: geometry, projection, filtered back projection, dose reduction by noise insertion and its calibration.

Slices are arrays (x, y), volumes (x, y, z), in HU; pixel sizes are (dx, dy) in mm; sinograms are (views, channels).
"""

from .calibration import Calibration, calibrate_quanta
from .dose import (
    MU_WATER_PER_MM,
    DoseSettings,
    added_noise_variance,
    check_hu,
    hu_to_attenuation,
    insert_noise,
    noise_image,
    slice_generator,
)
from .fbp import APODISATIONS, Apodisation, back_project, fbp, filter_sinogram, ramp_filter
from .geometry import ParallelBeam, PixelSize, check_pixel_size
from .noise_model import DEFAULT_QUANTA
from .projector import project

__all__ = [
    "APODISATIONS",
    "DEFAULT_QUANTA",
    "MU_WATER_PER_MM",
    "Apodisation",
    "Calibration",
    "DoseSettings",
    "ParallelBeam",
    "PixelSize",
    "added_noise_variance",
    "back_project",
    "calibrate_quanta",
    "check_hu",
    "check_pixel_size",
    "fbp",
    "filter_sinogram",
    "hu_to_attenuation",
    "insert_noise",
    "noise_image",
    "project",
    "ramp_filter",
    "slice_generator",
]
