"""Calibration from acquisition tags: photons from tube and slice, the reconstruction filter from the kernel's name.

An approximation for scans in which nothing can be measured. Photons per channel and view:

    N0 = 1.8e6 / (mm^2 mAs) * (kVp / 120)^2.5 * mAs * thickness * channel width at the isocentre / views

with the photons of a whole turn shared among the views of the geometry (opposite rays of a full turn measure the same
line, so half a turn of parallel views gets them all). Uncertainty: a factor of 2 either way.

- 1.8e6: image calibration of five scans of public data (GE LightSpeed16, Discovery LS, HiSpeed CT/i and HiSpeed Dual, Siemens
  Emotion 16) gave 1.7e6 as the geometric mean, from 0.7e6 to 3.3e6. A tube of 120 kVp with a body scanner's filtration
  gives about 1.6e6 photons per mm^2 and mAs at 1 m, 4.5e6 at an isocentre 0.6 m away; bowtie filter, gaps between channels,
  absorption and the spread of pulse heights leave less than half of that effective.
- Exponent 2.5: a scanner's dose rises with roughly the second to third power of the voltage (AAPM report 96, 2008); mu of
  water is kept, so N0 includes the better penetration, too.
- mAs is current * revolution time / pitch; failing that, current * exposure time; failing that, the stated exposure. The
  order matters because "Exposure" is used differently: it held 43 mAs where current and pitch gave 174, and 4803 where they
  gave 95 (both GE).
- Thickness is that of the reconstructed slice, because thickness and mAs, not the collimation, determine the photons of a
  slice.

Kernels: the frequency at which a Hann window of about the same sharpness ends, from the manufacturers' grading of sharpness
and, for some kernels, image calibration (GE SOFT 7 lp/cm, STANDARD 10; Siemens B30s 8). The 10 % point of the modulation
transfer function is at 0.8 of that frequency. Uncertainty: 25 %; no Hann window describes kernels that enhance edges, or
iterative reconstruction.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from .calibration import Calibration
from .dose import DoseSettings
from .geometry import Geometry, PixelSize, check_pixel_size
from .settings import DEFAULT_INCIDENT_PHOTONS

if TYPE_CHECKING:
    from ct_cncl.transforms.series import Acquisition

QUANTA_PER_MM2_MAS = 1.8e6
"""Effective photons per mm^2 and mAs in one turn, at the isocentre in the beam's centre, at 120 kVp; see the module
docstring."""
KVP_EXPONENT = 2.5
SIEMENS_LP_CM = {10: 5.0, 20: 6.5, 30: 8.0, 40: 9.0, 50: 11.5, 60: 13.5, 70: 17.0, 80: 20.0}
"""By the number in names such as B30f, Br40d, I31f, Hr64; interpolated linearly."""
GE_LP_CM = {
    "SOFT": 7.0, "STANDARD": 9.5, "STND": 9.5, "STD": 9.5, "CHST": 9.5, "DETAIL": 11.5, "LUNG": 13.0, "BONE": 15.5,
    "BONEPLUS": 17.0, "EDGE": 19.0,
}  # fmt: skip
PHILIPS_LP_CM = {"A": 7.0, "B": 8.5, "C": 10.5, "D": 13.5, "E": 16.0, "L": 13.5}
"""By the last letter of names such as B, YA, UB."""
CANON_LP_CM = {0: 8.5, 1: 8.5, 2: 9.5, 3: 16.0, 5: 13.5, 8: 16.0}
"""By the tens of names such as FC08, FC18, FC52: body with and without beam-hardening correction, head, bone, lung, sharp."""


def calibrate_from_tags(acquisition: Acquisition | None, pixel_mm: PixelSize, settings: DoseSettings) -> Calibration:
    """Derive photons and filter from the header's tags on tube, slice and kernel.

    Args:
        acquisition: tags of the scan; None if the file has none.
        pixel_mm: (dx, dy) in mm.
        settings: geometry and number of views; the filter if the kernel's name is not known.

    Returns:
        The calibration with method "tags"; ``noise_hu`` is NaN, since nothing was measured. If tags on tube or slice
        are missing, the method is "default" and ``reason`` names them. If the kernel is missing or not known, the filter is
        that of the settings, and ``reason`` says so.

    Raises:
        ValueError: for a missing pixel size.
    """
    beam = settings.rays((1, 1), check_pixel_size(pixel_mm))
    missing = _missing(acquisition)
    if acquisition is None or missing:
        return Calibration(
            incident_photons=DEFAULT_INCIDENT_PHOTONS,
            noise_hu=math.nan,
            method="default",
            apodisation=settings.apodisation,
            cutoff=settings.cutoff,
            reason=f"no calibration from tags: {missing} missing; default of {DEFAULT_INCIDENT_PHOTONS:g} photons",
        )
    ending = kernel_ending_lp_cm(acquisition.kernel, acquisition.manufacturer)
    return Calibration(
        incident_photons=incident_photons_from_tags(acquisition, beam),
        noise_hu=math.nan,
        method="tags",
        apodisation=settings.apodisation if ending is None else "hann",
        cutoff=settings.cutoff if ending is None else ending / 10 * 2 * beam.isocentre_spacing_mm,
        reason="" if ending is not None else _unknown(acquisition),
    )


def _missing(acquisition: Acquisition | None) -> str:
    if acquisition is None:
        return "all tags (the file is no DICOM)"
    stated = {"KVP": acquisition.kvp, "SliceThickness": acquisition.slice_thickness_mm}
    names = [name for name, value in stated.items() if value is None]
    if effective_mas(acquisition) is None:
        names.append("XRayTubeCurrent with ExposureTime, or Exposure,")
    return " and ".join(names)


def _unknown(acquisition: Acquisition) -> str:
    kernel = f"kernel {acquisition.kernel!r} of {acquisition.manufacturer or 'an unknown maker'} not known"
    return f"{kernel if acquisition.kernel else 'ConvolutionKernel missing'}: filter as given"


def effective_mas(acquisition: Acquisition) -> float | None:
    """Effective mAs of a slice; None if the tags do not give it.

    >>> from ct_cncl.transforms.series import Acquisition
    >>> effective_mas(Acquisition(tube_current_ma=200.0, revolution_time_s=0.5, pitch=0.8, exposure_mas=9.0))
    125.0
    """
    current, turn, pitch = acquisition.tube_current_ma, acquisition.revolution_time_s, acquisition.pitch
    if current is not None and turn is not None and pitch is not None:
        return current * turn / pitch
    if current is not None and acquisition.exposure_time_ms is not None:
        return current * acquisition.exposure_time_ms / 1000
    return acquisition.exposure_mas


def incident_photons_from_tags(acquisition: Acquisition, beam: Geometry) -> float:
    """N0 per channel and view of ``beam``, by the formula in the module docstring.

    Args:
        acquisition: with tube voltage, slice thickness and mAs.
        beam: gives the number of views and the ray spacing at the isocentre.

    Raises:
        ValueError: if one of these tags is missing.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> from ct_cncl.transforms.series import Acquisition
    >>> scan = Acquisition(kvp=120.0, exposure_mas=200.0, slice_thickness_mm=1.0)
    >>> incident_photons_from_tags(scan, ParallelBeam(views=720, channels=9, channel_spacing_mm=0.8))
    400000.0
    """
    kvp, thickness, mas = acquisition.kvp, acquisition.slice_thickness_mm, effective_mas(acquisition)
    if kvp is None or thickness is None or mas is None:
        raise ValueError(f"Expected tags of tube and slice but got none for {_missing(acquisition)}. Give the photons.")
    area = thickness * beam.isocentre_spacing_mm
    return QUANTA_PER_MM2_MAS * (kvp / 120) ** KVP_EXPONENT * mas * area / beam.views


def kernel_ending_lp_cm(kernel: str, manufacturer: str) -> float | None:
    """Frequency at which the Hann window closest to a kernel ends, line pairs per cm; None for unknown names.

    Args:
        kernel: ConvolutionKernel.
        manufacturer: Manufacturer; kernels of two manufacturers may have the same name.

    >>> kernel_ending_lp_cm("B35f", "SIEMENS"), kernel_ending_lp_cm("FC18", "TOSHIBA")
    (8.5, 8.5)
    """
    name, maker = re.sub(r"[\s_-]", "", kernel.upper()), manufacturer.upper()
    if "SIEMENS" in maker and (match := re.match(r"[A-Z]{1,2}(\d\d)", name)):
        number = int(match[1])
        if not min(SIEMENS_LP_CM) <= number <= max(SIEMENS_LP_CM):
            return None
        return float(np.interp(number, list(SIEMENS_LP_CM), list(SIEMENS_LP_CM.values())))
    if maker.startswith("GE"):
        return GE_LP_CM.get(name.rstrip("+"))
    if "PHILIPS" in maker and re.fullmatch(r"[FUXY]?[A-EL]", name):
        return PHILIPS_LP_CM[name[-1]]
    if ("TOSHIBA" in maker or "CANON" in maker) and (match := re.match(r"FC(\d)\d", name)):
        return CANON_LP_CM.get(int(match[1]))
    return None
