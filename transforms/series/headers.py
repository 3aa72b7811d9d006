"""DICOM headers: what kind of file it is, and which frames (slices) it holds. Pixels are not read here."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from ct_cncl.transforms.series.acquisition import ACQUISITION_TAGS
from ct_cncl.transforms.series.bounded import check_size, read_attributes
from ct_cncl.transforms.series.origin import ORIGIN_TAGS
from ct_cncl.transforms.series.other_kinds import HEADLESS, got_instead, kind_by_content
from ct_cncl.transforms.series.phases import PHASE_TAGS
from ct_cncl.transforms.series.scan import Frame, ScanError
from ct_cncl.transforms.series.text import first_text

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_HU_TYPES = ("", "HU", "US")  # US: unspecified, which many scanners write although their values are HU
_GREY = ("", "MONOCHROME1", "MONOCHROME2")
_HU_UNITS = ("", "HU", "[hnsf'U]")
_DEFER = 4096
_LONGEST_INTEGER = 1 << 31
"""Integer strings (IS) must be smaller."""
_YOUNG_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Transfer syntaxes of the DICOM standard that pydicom does not support yet."""
_PROJECTION = 0x70291010
"""Number of detector rows in DICOM-CT-PD, which marks projections that are stored as CT images, as in TCIA's LDCT collection."""
_TAGS = [Tag(_PROJECTION), *map(Tag, [
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "PatientID",
    "SeriesDescription", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "InstanceNumber",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "RealWorldValueMappingSequence",
    *ACQUISITION_TAGS, *ORIGIN_TAGS, *PHASE_TAGS,
])]  # fmt: skip


def has_dicom_marker(path: Path) -> bool:
    """Whether the file has "DICM" after its 128-byte preamble.

    Raises:
        ScanError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise ScanError(f"{path}: expected a readable file but got {error.strerror}; check its permissions") from error


def read_header(path: Path) -> Dataset:
    """Read the attributes that this package needs, without the pixels.

    Raises:
        ScanError: the file is not DICOM, or is damaged.
    """
    if not has_dicom_marker(path):
        if (kind := kind_by_content(path)) not in ("", HEADLESS):
            raise ScanError(f"{path}: {got_instead(path, kind)}")
        raise ScanError(
            f"{path}: expected a DICOM file but got one without the DICM marker: not DICOM, cut off, or stored without "
            "its file header; export it again as a DICOM file (PS3.10)"
        )
    try:
        # Not stop_before_pixels: the presence of the pixels shows that the header is complete. They are read on access only.
        header = read_attributes(path, _TAGS, defer=_DEFER)
        for tag in ("SOPClassUID", "ImageType", "SeriesInstanceUID", "PatientID"):
            header.get(tag)  # values are parsed on access, so that a damaged one raises here
        header.file_meta.get("MediaStorageSOPClassUID")
    except ScanError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        raise _unknown_syntax(path, _syntax_of(path)) or damaged(path, error) from error
    if unknown := _unknown_syntax(path, str(header.file_meta.get("TransferSyntaxUID") or "")):
        raise unknown
    return header


def stated_series_number(header: Dataset) -> int | None:
    """SeriesNumber; None if it is missing or not a number, which is no reason to refuse an image."""
    try:
        number = None if header.get("SeriesNumber") is None else int(header.SeriesNumber)
    except Exception:  # pydicom raises nearly every built-in exception on damaged values
        return None
    return number if number is None or abs(number) < _LONGEST_INTEGER else None


def _syntax_of(path: Path) -> str:
    """The transfer syntax that a file states; empty if it cannot be read."""
    try:
        return str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") or "")
    except Exception:  # as above
        return ""


def _unknown_syntax(path: Path, syntax: str) -> ScanError | None:
    """The error for a transfer syntax that pydicom does not support: a private one, or one newer than pydicom."""
    # pynetdicom adds the newer ones to pydicom's list when it is imported, but nothing can decode them.
    if not syntax or (UID(syntax).is_transfer_syntax and syntax not in _YOUNG_SYNTAXES):
        return None
    name = _YOUNG_SYNTAXES.get(syntax, "a private one" if UID(syntax).is_private else "an unknown one")
    return ScanError(
        f"{path}: expected a transfer syntax that can be read here but got {name} ({syntax}); have the system that wrote the file "
        "export it as Explicit VR Little Endian"
    )


def bare_copy(source: Dataset) -> Dataset:
    """A copy of a data set without pixels, signatures and padding; values that were not decoded yet stay so."""
    kept = {tag: source.get_item(tag) for tag in sorted(source.keys()) if tag.group < 0xFFFA and tag.group != 0x7FE0}
    header = Dataset(kept)  # type: ignore[arg-type]
    implicit, little = source.original_encoding
    header.set_original_encoding(implicit, little, source.original_character_set)
    return copy.deepcopy(header)


_QUOTED = re.compile(r"""(['"])(?![\d.,]{1,6}\1).*\1""")


def damaged(path: Path, error: BaseException | str) -> ScanError:
    """The error for a file that is truncated or cannot be parsed."""
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip()
    ]  # pydicom writes tracebacks into its messages
    first_line = next((line for line in lines if not line.endswith(":")), lines[0] if lines else "")
    # Python quotes the value that it could not convert: a short number such as "0,5" helps, anything else may identify a patient.
    what = first_line if isinstance(error, str) else f"{type(error).__name__}: {_QUOTED.sub('...', first_line)}"
    if isinstance(error, TypeError) and any(kind in first_line for kind in ("'MultiValue'", "'list'")):
        what = "several values where there is one number"
    return ScanError(f"{path}: expected a complete DICOM file but got a damaged one ({what}); copy or export it again")


def passed_over(path: Path, header: Dataset) -> str:
    """What a DICOM file is if it is not a CT slice ("SR", "LOCALIZER", ...); empty if it is one.

    Raises:
        ScanError: the header is truncated, so that a CT slice could be mistaken for something else, or its pixels cannot be read.
    """
    kinds = [header.file_meta.get("MediaStorageSOPClassUID"), header.get("SOPClassUID")]
    if kinds[0] == MediaStorageDirectoryStorage:
        return "DICOMDIR"
    if kinds[1] is None:
        raise damaged(path, "no SOPClassUID")
    if not any(kind in CT_CLASSES for kind in kinds):
        modality = first_text(header.get("Modality"))
        return _class_name(UID(str(kinds[1]))) if modality in ("", "CT") else modality
    syntax = header.file_meta.get("TransferSyntaxUID") or UID("")
    unknown = _unknown_syntax(path, syntax)
    if unknown is not None:
        raise unknown
    if "PixelData" not in header and syntax.name.startswith("JPIP"):
        raise ScanError(
            f"{path}: expected pixels but got the address of a server that has them (JPIP); export the images"
        )
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise ScanError(
            f"{path}: expected whole numbers as stored values but got Float Pixel Data, which CT images do not have; export the CT"
        )
    if "PixelData" not in header:
        raise damaged(path, "no pixels")
    if _PROJECTION in header:
        return "PROJECTIONS"
    image_type = header.get("ImageType") or ""
    values = [image_type] if isinstance(image_type, str) else image_type
    return "LOCALIZER" if "LOCALIZER" in [str(value).upper() for value in values] else ""


def _class_name(kind: UID) -> str:
    """The standard's name for the objects of a SOP class."""
    if kind.is_private or kind.name == kind:
        return "images of a private kind (SOP Class)" if kind.is_private else "objects of an unknown kind (SOP Class)"
    return kind.name.removesuffix(" Storage")


def frames_of(path: Path, header: Dataset, *, check_hu: bool = True) -> list[Frame]:
    """The slices of one file: one for classic CT, one per frame for enhanced multi-frame CT.

    Args:
        path: the file, for error messages.
        header: from :func:`read_header`.
        check_hu: refuse frames whose values are stated to be in other units than HU.

    Raises:
        ScanError: the geometry or rescale is missing or impossible, the image is in colour, or the values are not HU.
    """
    try:
        if header.get("SamplesPerPixel", 1) != 1:
            raise ScanError(
                f"{path}: expected one value per voxel but got {header.SamplesPerPixel} (colour); export the CT"
            )
        shown_as = first_text(header.get("PhotometricInterpretation")).upper()
        if shown_as not in _GREY:
            raise ScanError(
                f"{path}: expected grey values (MONOCHROME2) but got {shown_as}, whose values are not HU; export the CT"
            )
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if groups is None:
            if int(header.get("NumberOfFrames") or 1) != 1:
                raise damaged(path, "several frames without per-frame functional groups")
            return [_frame(path, None, header, [header], check_hu=check_hu)]
        if len(groups) != int(header.get("NumberOfFrames") or 1):
            raise damaged(path, f"{header.get('NumberOfFrames')} frames but {len(groups)} functional groups")
        shared = list(header.get("SharedFunctionalGroupsSequence") or [])
        return [_frame(path, k, header, [group, *shared], check_hu=check_hu) for k, group in enumerate(groups)]
    except ScanError:
        raise
    except Exception as error:  # as in read_header
        raise damaged(path, error) from error


def _frame(path: Path, index: int | None, header: Dataset, places: list[Dataset], *, check_hu: bool) -> Frame:
    """One slice, described by the header itself or by the frame's own and the shared functional groups."""
    position = _vector(path, places, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _vector(path, places, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _vector(path, places, "PixelMeasuresSequence", "PixelSpacing", 2)
    row, column = orientation[:3], orientation[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > 0.01 or abs(float(row @ column)) > 0.01:
        raise ScanError(f"{path}: expected two perpendicular unit vectors in ImageOrientationPatient but got "
                        f"{orientation.tolist()}; the geometry is unknown, export the series again")  # fmt: skip
    if spacing.min() <= 0:
        raise ScanError(f"{path}: expected a PixelSpacing above 0 mm but got {spacing.tolist()}; export it again")
    if header.get("ModalityLUTSequence"):
        raise ScanError(
            f"{path}: expected RescaleSlope and RescaleIntercept but got a Modality LUT Sequence, which CT images must not have and only some programs "
            "apply; export the original series"
        )
    values = "PixelValueTransformationSequence"
    slope, intercept = (_number_in(places, values, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or slope == 0 or not math.isfinite(slope + intercept):
        stated = (first_text(_lookup(places, values, name)) or None for name in ("RescaleSlope", "RescaleIntercept"))
        raise ScanError(
            f"{path}: expected RescaleSlope and RescaleIntercept but got {' and '.join(map(str, stated))}; stored values cannot "
            "become HU without them, export the original series"
        )
    rescale_type = first_text(_lookup(places, values, "RescaleType"))
    if check_hu:
        _check_units(
            path, rescale_type, _lookup(places, "RealWorldValueMappingSequence", "MeasurementUnitsCodeSequence")
        )
    shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
    if min(shape) < 1:
        raise damaged(path, f"{shape[0]} rows of {shape[1]} columns")
    check_size(path, *shape)
    thickness = _thickness_in(places)
    return Frame(
        path, index, shape, position, orientation, (float(spacing[0]), float(spacing[1])), thickness,
        slope, intercept, str(header.get("SOPInstanceUID") or ""), _number(header),
    )  # fmt: skip


def grids_of(header: Dataset) -> np.ndarray:
    """Orientation and pixel spacing of a file: (8,) if stated and the same in all frames, else all the values that are stated.

    Raises:
        Exception: a value cannot be parsed.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    frames = [[group, *shared] for group in groups] if groups else [[header]]
    grids = []
    for places in frames:
        stated = (
            _lookup(places, "PlaneOrientationSequence", "ImageOrientationPatient"),
            _lookup(places, "PixelMeasuresSequence", "PixelSpacing"),
        )
        grids.append(
            np.concatenate([np.array([] if value is None else value, dtype=np.float64).ravel() for value in stated])
        )
    alike = all(same_numbers(grid, grids[0]) for grid in grids)
    return grids[0] if alike else np.concatenate(grids)


def same_numbers(some: np.ndarray, others: np.ndarray) -> bool:
    """Whether two grids are equal within the precision of headers; NaN and infinity equal themselves."""
    return some.shape == others.shape and np.allclose(some, others, rtol=0, atol=1e-3, equal_nan=True)


def _number(header: Dataset) -> int:
    """InstanceNumber, or 0; it only orders slices at the same position, so a damaged one is no reason to refuse the file."""
    try:
        return int(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0


def _lookup(places: list[Dataset], sequence: str, name: str) -> Any:
    """The first value of ``name`` in ``places``, directly or within ``sequence``; None if there is none."""
    for place in places:
        for holder in (place, *(place.get(sequence) or [])):
            value = holder.get(name)
            if value is not None and value != "":
                return value
    return None


def _number_in(places: list[Dataset], sequence: str, name: str) -> float | None:
    """A number; several equal values count as one. None if no place states it.

    Raises:
        Exception: the value is not a number, or several values differ.
    """
    value = _lookup(places, sequence, name)
    several = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    one = several[0] if len(several) > 0 and len(set(several)) == 1 else value
    return None if one is None else float(one)


def _thickness_in(places: list[Dataset]) -> float:
    """SliceThickness, mm; 0 if it is missing or unusable, since it only matters for a single slice."""
    try:
        thickness = _number_in(places, "PixelMeasuresSequence", "SliceThickness") or 0.0
    except Exception:  # pydicom raises nearly every built-in exception on damaged values
        return 0.0
    return thickness if math.isfinite(thickness) and thickness > 0 else 0.0


def _vector(path: Path, places: list[Dataset], sequence: str, name: str, length: int) -> np.ndarray:
    value = _lookup(places, sequence, name)
    vector = np.array([] if value is None else value, dtype=np.float64).ravel()
    if vector.shape != (length,) or not np.isfinite(vector).all():
        stated = "none" if value is None else str(vector.tolist())
        raise ScanError(
            f"{path}: expected {length} numbers in {name} but got {stated}; the position of the slice is unknown, export "
            "the series with its geometry"
        )
    return vector


def _check_units(path: Path, rescale_type: str, units: Any) -> None:
    unit = str(units[0].get("CodeValue", "")) if units else ""
    if rescale_type.upper() not in _HU_TYPES or unit not in _HU_UNITS:
        raise ScanError(
            f"{path}: expected HU but got values stated in {unit or rescale_type}: a map, not a CT image; choose "
            "the CT series, or pass check_hu=False to read them anyway"
        )
