"""Headers of derived DICOM images: what a denoised slice states about itself and its source.

They are made by hand because highdicom can create segmentations, maps and secondary captures, but not a CT image derived from
another one.

Sources: PS3.3 C.7.6.1.1.2 (Image Type), C.12.4 (General Reference), C.12.1.1.5 (Contributing Equipment); for enhanced CT
C.8.16.1 (value 2 is always PRIMARY there), C.8.15.3.1 (Frame Type) and C.7.6.16.2.6 (Derivation Image).
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from ct_cncl.transforms.series.derivation import (
    IMPLEMENTATION,
    KINDS,
    PART_MARK,
    SCHEME,
    Derivation,
    Kind,
    Processing,
    derived_uid,
    result_series_number,
)
from ct_cncl.transforms.series.headers import bare_copy, stated_series_number
from ct_cncl.transforms.series.marks import mark_of
from ct_cncl.transforms.series.origin import MODEL_NAME
from ct_cncl.transforms.series.scan import Frame, ScanError
from ct_cncl.transforms.series.text import label_description

_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_OF_THE_SOURCE_FILE = (
    "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "IconImageSequence", "MACParametersSequence",
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
)  # fmt: skip
_OF_THE_SOURCE_VALUES = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "VOILUTSequence",
    "WindowCenterWidthExplanation", "RealWorldValueMappingSequence",
)  # fmt: skip


def derived_header(
    source: Dataset, frame: Frame, derivation: Derivation | Processing, kind: Kind, *, part: int = 0
) -> Dataset:
    """The header of a derived image; every attribute of the source that the derivation does not affect is kept.

    Args:
        source: the source's data set, with or without pixels; it is not changed.
        frame: any frame of the file, for error messages.
        derivation: how the image was derived.
        kind: what the image shows.
        part: number of the part of a split series, so that each part gets its own UID; 0 if the series was not split.

    Returns:
        A data set without pixels; its file meta information has no transfer syntax yet.

    Raises:
        ScanError: the source has no SOPInstanceUID, SeriesInstanceUID or StudyInstanceUID.
    """
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not source.get(name):
            raise ScanError(
                f"{frame.path}: expected a {name}, which a derived image must refer to, but got none; export it again"
            )
    header = bare_copy(source)
    for name in _OF_THE_SOURCE_FILE:
        if name in header:
            delattr(header, name)
    reference = _reference(header, "121322", "Source image for image processing operation")
    evidence = _evidence(header)
    series = str(header.SeriesInstanceUID) + (f"{PART_MARK}{part}" if part else "")
    header.SeriesNumber = result_series_number(stated_series_number(header), series, derivation, kind)
    header.SOPInstanceUID = derived_uid(header.SOPInstanceUID, derivation, kind)
    header.SeriesInstanceUID = derived_uid(series, derivation, kind)
    for name in ("ConcatenationUID", "SOPInstanceUIDOfConcatenationSource"):
        if header.get(name):
            header[name].value = derived_uid(header[name].value, derivation, kind)
    _state_times(header, derivation.made)
    label_description(header, derivation.label(kind))
    equipment = list(header.get("ContributingEquipmentSequence") or [])
    header.ContributingEquipmentSequence = [*equipment, _equipment(derivation, kind, header)]
    schemes = list(header.get("CodingSchemeIdentificationSequence") or [])
    header.CodingSchemeIdentificationSequence = [*schemes, _coding_scheme()]
    if source.file_meta.get("TransferSyntaxUID") in _LOSSY:
        header.LossyImageCompression = "01"
    if "PerFrameFunctionalGroupsSequence" in header:
        _derive_frames(header, reference, evidence, derivation, kind)
    else:
        header.ImageType = _image_type(header.get("ImageType"), "SECONDARY", kind)
        header.DerivationDescription = derivation.describe(kind)
        header.DerivationCodeSequence = [_code(derivation.code[0], SCHEME, derivation.code[1])]
        header.SourceImageSequence = [reference]
    if kind.is_map:
        _describe_map(header, kind)
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.ImplementationClassUID = IMPLEMENTATION
    header.file_meta.ImplementationVersionName = mark_of(kind.name)
    return header


def _state_times(header: Dataset, made: datetime | None) -> None:
    """State when the object, its pixels and its series were made (PS3.3 C.12.1, C.7.6.1, C.7.3.1).

    The times of the study and the acquisition remain the scanner's.
    """
    if made is None:
        return
    local = _in_zone_of(header, made)
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(header, f"{name}Date", local.strftime("%Y%m%d"))
        setattr(header, f"{name}Time", local.strftime("%H%M%S"))


def _in_zone_of(header: Dataset, made: datetime) -> datetime:
    """A time in the time zone that the header states for all its times, or in this machine's if it states none."""
    stated = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        minutes = int(stated[:3]) * 60 + int(stated[0] + stated[3:5])
        return made.astimezone(timezone(timedelta(minutes=minutes)))
    except (ValueError, IndexError):
        return made.astimezone()


def _image_type(stated: object, second: str, kind: Kind) -> list[str]:
    """DERIVED, the given second value, and the source's values from the third on; for a map, its own value follows."""
    values = [str(value) for value in stated] if isinstance(stated, (list, MultiValue)) else []
    kept = values[2:]
    return ["DERIVED", second, *(kept or ["AXIAL"] * kind.is_map), *([kind.image_type] if kind.is_map else [])]


def _derive_frames(
    header: Dataset, reference: Dataset, evidence: Dataset, derivation: Derivation | Processing, kind: Kind
) -> None:
    """State for each frame of an enhanced image what a classic image states at the top level."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    groups = list(header.PerFrameFunctionalGroupsSequence)
    earlier = list(header.get("SourceImageEvidenceSequence") or [])
    header.SourceImageEvidenceSequence = [*earlier, evidence]
    header.ImageType = _frame_type(header.get("ImageType"))
    for group in (*shared, *groups):
        for item in group.get("CTImageFrameTypeSequence") or []:
            item.FrameType = _frame_type(item.get("FrameType"))
    earlier = [item for group in shared for item in group.get("DerivationImageSequence") or []]
    for group in shared:  # a functional group must be either shared or per frame
        group.pop("DerivationImageSequence", None)
    for index, group in enumerate(groups):
        source = copy.deepcopy(reference)
        source.ReferencedFrameNumber = index + 1
        item = Dataset()
        item.DerivationDescription = derivation.describe(kind)
        item.DerivationCodeSequence = [_code(derivation.code[0], SCHEME, derivation.code[1])]
        item.SourceImageSequence = [source]
        group.DerivationImageSequence = [*earlier, *(group.get("DerivationImageSequence") or []), item]


def _frame_type(stated: object) -> list[str]:
    """Four values: in multi-frame images value 2 is PRIMARY by definition, and value 4 must not be empty."""
    values = _image_type(stated, "PRIMARY", KINDS["denoised"])
    return [*values, *["VOLUME", "NONE"][len(values) - 2 :]] if len(values) < 4 else values


def _describe_map(header: Dataset, kind: Kind) -> None:
    """Describe a map's signed words in steps of HU wherever the source states its own rescale, window and padding."""
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or []),
        *(header.get("PerFrameFunctionalGroupsSequence") or []),
    ]
    for name in _OF_THE_SOURCE_VALUES:
        for place in (header, *groups):
            place.pop(name, None)
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    places = [item for group in groups for item in group.get("PixelValueTransformationSequence") or []] or [header]
    for place in places:
        place.RescaleIntercept, place.RescaleType = "0", "HU"
        if kind.step is not None:
            place.RescaleSlope = f"{kind.step:g}"
    for tag in [tag for tag in sorted(header.keys()) if tag.group & 0xFF01 == 0x6000 and tag.element == 0x0102]:
        if header[tag].value:  # an overlay in unused bits of the source's words
            for other in [other for other in sorted(header.keys()) if other.group == tag.group]:
                del header[other]
    if kind.window is None:
        return
    for place in [item for group in groups for item in group.get("FrameVOILUTSequence") or []] or [header]:
        place.WindowCenter, place.WindowWidth = kind.window


def _reference(source: Dataset, code: str, meaning: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [_code(code, "DCM", meaning)]
    item.SpatialLocationsPreserved = "YES"
    return item


def _evidence(source: Dataset) -> Dataset:
    """Reference to the source within its study and series."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = source.SeriesInstanceUID, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.StudyInstanceUID, [series]
    return study


def _equipment(derivation: Derivation | Processing, kind: Kind, header: Dataset) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = "ct-cncl developers"
    item.ManufacturerModelName = MODEL_NAME
    item.SoftwareVersions = derivation.software
    item.ContributionDescription = derivation.describe(kind)
    if derivation.made is not None:
        item.ContributionDateTime = _in_zone_of(header, derivation.made).strftime("%Y%m%d%H%M%S%z")
    return item


def _coding_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = SCHEME, "Codes of ct-cncl"
    item.CodingSchemeResponsibleOrganization = "ct-cncl developers"
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
