"""What the node keeps of a header: what rules match on, and the identity of the object. It keeps no patient names or IDs."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.origin import RULE_TAGS, origin_and_reason
from ct_cncl.transforms.series.acquisition import ACQUISITION_TAGS, read_acquisition

_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "IssuerOfPatientID", "Modality", "InstanceNumber",
    "SeriesNumber", "SeriesDescription", "StudyDescription", "Rows", "Columns", "NumberOfFrames", "NumberOfSeriesRelatedInstances",
    "SharedFunctionalGroupsSequence", *RULE_TAGS, *ACQUISITION_TAGS,
]  # fmt: skip
_LONGEST = 64 * 2
"""Longest text that is kept, in characters."""


@dataclass(frozen=True)
class Facts:
    """What an object's header says. If it does not say, text is empty and numbers are None.

    Attributes:
        kvp: tube voltage in kV.
        slice_thickness: in mm.
        image_type: all values of Image Type.
        origin: one of :data:`~ct_cncl.pipeline.node.origin.ORIGINS`.
        origin_says: what in the header says so.
        instances: number of objects in the series, if the object states it.
    """

    modality: str = ""
    manufacturer: str = ""
    kernel: str = ""
    kvp: float | None = None
    slice_thickness: float | None = None
    body_part: str = ""
    series_description: str = ""
    study_description: str = ""
    image_type: tuple[str, ...] = ()
    origin: str = "original"
    origin_says: str = ""
    instance_number: int = 0
    instances: int | None = None

    def plain(self) -> dict[str, Any]:
        """The facts as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Facts:
        """Facts from their JSON values. Keys from other versions of this program are ignored."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(**known | {"image_type": tuple(known.get("image_type") or ())})


@dataclass(frozen=True)
class Identity:
    """The UIDs that identify an object.

    Attributes:
        patient: hash of Patient ID and issuer, used for limits. It must not appear in logs.
    """

    uid: str
    sop_class: str
    study: str
    series: str
    patient: str


def read_object(path: Path) -> tuple[Identity, Facts]:
    """Read the identity and facts of a DICOM file, without its pixels.

    Raises:
        NodeError: the file cannot be parsed, or a UID is missing or malformed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values, which may be names
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            identity, facts = _identity(header), facts_of(header)
    except NodeError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        raise NodeError(f"expected a complete DICOM object, but got a damaged one ({type(error).__name__})") from error
    return identity, facts


def _identity(header: Dataset) -> Identity:
    values = {
        name: str(header.get(name) or "").strip()
        for name in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    bad = [name for name, value in values.items() if not value or len(value) > 64 or set(value) - set("0123456789.")]
    if bad:
        raise NodeError(f"expected a UID in {bad[0]}, but it is missing or wrong")
    patient = f"{header.get('PatientID') or ''}|{header.get('IssuerOfPatientID') or ''}"
    uid, sop_class, study, series = values.values()
    return Identity(uid, sop_class, study, series, hashlib.sha256(patient.encode()).hexdigest()[:16])


def facts_of(header: Dataset) -> Facts:
    """The facts in a header that rules match on."""
    own = read_acquisition([header])
    origin, says = origin_and_reason(header)
    image_type = header.get("ImageType") or ()
    values = [image_type] if isinstance(image_type, str) else image_type
    return Facts(
        modality=_text(header.get("Modality")).upper(),
        manufacturer=_text(own.manufacturer),
        kernel=_text(own.kernel),
        kvp=own.kvp,
        slice_thickness=own.slice_thickness_mm,
        body_part=_text(own.body_part),
        series_description=_text(header.get("SeriesDescription")),
        study_description=_text(header.get("StudyDescription")),
        image_type=tuple(_text(value).upper() for value in values),
        origin=origin,
        origin_says=says,
        instance_number=_whole(header.get("InstanceNumber")) or 0,
        instances=_whole(header.get("NumberOfSeriesRelatedInstances")),
    )


def _text(value: Any) -> str:
    return " ".join(str("" if value is None else value).split())[:_LONGEST]


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
