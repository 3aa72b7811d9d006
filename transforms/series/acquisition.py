"""Acquisition parameters from DICOM headers; nothing that identifies the patient."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from ct_cncl.transforms.series.text import first_text

_EXPOSURE = "CTExposureSequence"
_PLACES = {
    "kvp": ("CTXRayDetailsSequence", ("KVP",)),
    "tube_current_ma": (_EXPOSURE, ("XRayTubeCurrentInmA", "XRayTubeCurrent")),
    "exposure_time_ms": (_EXPOSURE, ("ExposureTimeInms", "ExposureTime")),
    "exposure_mas": (_EXPOSURE, ("ExposureInmAs", "Exposure")),
    "revolution_time_s": ("CTAcquisitionDetailsSequence", ("RevolutionTime",)),
    "pitch": ("CTTableDynamicsSequence", ("SpiralPitchFactor",)),
    "slice_thickness_mm": ("PixelMeasuresSequence", ("SliceThickness",)),
}
"""By field: the functional group that holds it in enhanced CT, and its attributes in enhanced and in classic CT."""
ACQUISITION_TAGS = [
    *dict.fromkeys(name for sequence, names in _PLACES.values() for name in (*names, sequence)),
    "ConvolutionKernel",
    "CTReconstructionSequence",
    "Manufacturer",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
]
"""Attributes that must be read for :func:`read_acquisition`."""


@dataclass(frozen=True)
class Acquisition:
    """How a scan was acquired; numbers are medians over its slices, and None or empty if the header does not state them.

    Attributes:
        kvp: tube voltage, kV.
        tube_current_ma: mA.
        exposure_time_ms: exposure time of a slice, ms.
        exposure_mas: as the scanner states it, mAs; its definition differs between manufacturers.
        revolution_time_s: duration of one gantry rotation, s.
        pitch: table feed per rotation over the collimated width.
        slice_thickness_mm: nominal thickness of the reconstructed slices, mm.
        kernel: the manufacturer's name of the kernel.
        manufacturer: as the header states it.
        body_part: BodyPartExamined in capitals.
        contrast: whether a contrast agent was given; None if the header does not say, as is common for scans without one.
    """

    kvp: float | None = None
    tube_current_ma: float | None = None
    exposure_time_ms: float | None = None
    exposure_mas: float | None = None
    revolution_time_s: float | None = None
    pitch: float | None = None
    slice_thickness_mm: float | None = None
    kernel: str = ""
    manufacturer: str = ""
    body_part: str = ""
    contrast: bool | None = None


def read_acquisition(headers: Sequence[Dataset]) -> Acquisition:
    """Read the acquisition parameters of one series; numbers that are missing, damaged or not above 0 are left out.

    Args:
        headers: from :func:`ct_cncl.transforms.series.headers.read_header`, one per file.
    """
    places = [place for header in headers for place in _places(header)]
    numbers = {name: _median(places, *where) for name, where in _PLACES.items()}
    kernels = [
        first_text(value)
        for place in places
        for value in _values(place, "CTReconstructionSequence", "ConvolutionKernel")
    ]
    makers = [first_text(_get(header, "Manufacturer")) for header in headers]
    body = _first([first_text(_get(header, "BodyPartExamined")).upper() for header in headers])
    return Acquisition(
        **numbers, kernel=_first(kernels), manufacturer=_first(makers), body_part=body, contrast=_contrast(headers)
    )


def _contrast(headers: Sequence[Dataset]) -> bool | None:
    agent = _first([first_text(_get(header, "ContrastBolusAgent")) for header in headers]).upper()
    if agent:
        return agent not in ("NO", "NONE", "WITHOUT", "-")
    return True if any(_get(header, "ContrastBolusAgentSequence") for header in headers) else None


def _places(header: Dataset) -> list[Dataset]:
    """The header and the functional groups of its frames, if it has any."""
    groups = [_get(header, f"{kind}FunctionalGroupsSequence") or [] for kind in ("Shared", "PerFrame")]
    return [header, *groups[0], *groups[1]]


def _values(place: Dataset, sequence: str, name: str) -> list[Any]:
    return [_get(holder, name) for holder in (place, *(_get(place, sequence) or []))]


def _get(holder: Dataset, name: str) -> Any:
    try:
        return holder.get(name)
    except Exception:  # pydicom raises nearly every built-in exception on damaged values; none of these matters enough to refuse the scan
        return None


def _median(places: Sequence[Dataset], sequence: str, names: Sequence[str]) -> float | None:
    for name in names:
        found = [_number(value) for place in places for value in _values(place, sequence, name)]
        numbers = [value for value in found if value is not None]
        if numbers:
            return statistics.median(numbers)
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _first(texts: Sequence[str]) -> str:
    return next((text for text in texts if text), "")
