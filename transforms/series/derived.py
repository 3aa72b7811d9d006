"""Headers of derived DICOM images: what a denoised slice says of itself and of its source.

Sources: PS3.3 C.7.6.1.1.2 (Image Type), C.12.4 (General Reference), C.12.1.1.5 (Contributing Equipment); for enhanced CT
C.8.16.1 (value 2 is PRIMARY there, whatever was done), C.8.15.3.1 (Frame Type) and C.7.6.16.2.6 (Derivation Image).
"""

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from ct_cncl.transforms.series.headers import bare_copy
from ct_cncl.transforms.series.scan import Frame, ScanError

_NAMESPACE = uuid.UUID("6f6b1d5e-8f0c-5a55-9a0b-1f3a0c6f2a41")
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_OF_THE_SOURCE_FILE = (
    "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "IconImageSequence", "MACParametersSequence",
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
)  # fmt: skip
_OF_THE_SOURCE_VALUES = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "VOILUTSequence",
    "WindowCenterWidthExplanation", "RealWorldValueMappingSequence",
)  # fmt: skip
_SCHEME = "99CTCNCL"
_SERIES_STEP = 1000
_LARGEST_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Kind:
    """One sort of result.

    Attributes:
        name: as users ask for it.
        number: SeriesNumber is the source's times 1000 plus this.
        label: in SeriesDescription.
        image_type: added to Image Type; empty where the result is a CT image like its source.
        window: centre and width in HU at which it is shown; None keeps the source's.
    """

    name: str
    number: int
    label: str
    image_type: str = ""
    window: tuple[float, float] | None = None

    @property
    def is_map(self) -> bool:
        """Stored in whole HU, signed, slope 1, instead of as the source."""
        return bool(self.image_type)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("denoised", 1, "denoised"),
        Kind("noise", 2, "noise estimate, HU", "NOISE", (0.0, 200.0)),
        Kind("content", 3, "content estimate, HU", "CONTENT"),
        Kind("disagreement", 4, "disagreement of the estimates, HU", "DISAGREEMENT", (50.0, 100.0)),
    )
}
"""What can be written, by name."""


@dataclass(frozen=True)
class Derivation:
    """What was done.

    Attributes:
        weights: SHA-256 of the weights, hexadecimal.
        version: of this package.
        strength: 0 to 1; 1 is the network's result, 0 the source.
        warnings: to be recorded in the result.
        precision: of the network's arithmetic, "fp32" or "bf16".
        edition: 1; more where slices of the series came later and the result takes an earlier one's place, under UIDs of its own.
    """

    weights: str
    version: str
    strength: float = 1.0
    warnings: tuple[str, ...] = ()
    precision: str = "fp32"
    edition: int = 1

    def describe(self, kind: Kind) -> str:
        """One line for DerivationDescription (at most 1024 characters)."""
        text = f"ct-cncl {self.version}: {kind.label}; CNCL, weights sha256 {self.weights[:16]}, strength {self.strength:g}"
        return "; ".join([", ".join([text, *self.unusual_precision, *self.later_edition]), *self.warnings])[:1024]

    @property
    def unusual_precision(self) -> tuple[str, ...]:
        """The precision where it is not fp32; what was derived in fp32 keeps the UIDs and words that it always had."""
        return () if self.precision == "fp32" else (self.precision,)

    @property
    def later_edition(self) -> tuple[str, ...]:
        """The edition where it is not the first; the first keeps the UIDs and words that it always had."""
        return () if self.edition == 1 else (f"edition {self.edition}",)


def derived_uid(uid: str, derivation: Derivation, kind: Kind) -> UID:
    """The UID of what is derived from ``uid``: the same again for the same source, weights, strength, kind and precision.

    >>> first = derived_uid("1.2.3", Derivation("ab", "1"), KINDS["denoised"])
    >>> first == derived_uid("1.2.3", Derivation("ab", "2"), KINDS["denoised"])
    True
    >>> first == derived_uid("1.2.3", Derivation("ab", "1", precision="bf16"), KINDS["denoised"])
    False
    """
    name = "|".join(
        (
            uid,
            derivation.weights,
            f"{derivation.strength:g}",
            kind.name,
            *derivation.unusual_precision,
            *derivation.later_edition,
        )
    )
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def derived_header(source: Dataset, frame: Frame, derivation: Derivation, kind: Kind, *, part: int = 0) -> Dataset:
    """The header of the image derived from a source's; every attribute that is not about the change is kept.

    Args:
        source: the source's data set, with or without pixels; not changed.
        frame: any frame of the file, for errors.
        derivation: what was done.
        kind: what the image shows.
        part: of a series that was split, so that its parts stay apart.

    Returns:
        A data set without pixels, its file meta without a transfer syntax.

    Raises:
        ScanError: the source does not say which instance it is.
    """
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not source.get(name):
            raise ScanError(
                f"{frame.path}: expected a {name}, to derive an image from it, but got none; export it again"
            )
    header = bare_copy(source)
    for name in _OF_THE_SOURCE_FILE:
        if name in header:
            delattr(header, name)
    reference = _reference(header, "121322", "Source image for image processing operation")
    evidence = _evidence(header)
    series = f"{header.SeriesInstanceUID}.{part}" if part else str(header.SeriesInstanceUID)
    header.SOPInstanceUID = derived_uid(header.SOPInstanceUID, derivation, kind)
    header.SeriesInstanceUID = derived_uid(series, derivation, kind)
    for name in ("ConcatenationUID", "SOPInstanceUIDOfConcatenationSource"):
        if header.get(name):
            header[name].value = derived_uid(header[name].value, derivation, kind)
    number = int(header.get("SeriesNumber") or 0) * _SERIES_STEP + kind.number
    header.SeriesNumber = number if 0 < number <= _LARGEST_NUMBER else kind.number
    before = str(header.get("SeriesDescription") or "").strip()
    strength = () if derivation.strength == 1 else (f"{derivation.strength:g}",)
    label = " ".join((kind.label, "CNCL", *strength, *derivation.unusual_precision))
    header.SeriesDescription = f"{before[: 64 - len(label) - 1]} {label}".strip()
    equipment = list(header.get("ContributingEquipmentSequence") or [])
    header.ContributingEquipmentSequence = [*equipment, _equipment(derivation, kind)]
    schemes = list(header.get("CodingSchemeIdentificationSequence") or [])
    header.CodingSchemeIdentificationSequence = [*schemes, _coding_scheme()]
    if source.file_meta.get("TransferSyntaxUID") in _LOSSY:
        header.LossyImageCompression = "01"
    if "PerFrameFunctionalGroupsSequence" in header:
        _derive_frames(header, reference, evidence, derivation, kind)
    else:
        header.ImageType = _image_type(header.get("ImageType"), "SECONDARY", kind)
        header.DerivationDescription = derivation.describe(kind)
        header.DerivationCodeSequence = [_derivation_code()]
        header.SourceImageSequence = [reference]
    if kind.is_map:
        _describe_map(header, kind)
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def _image_type(stated: object, second: str, kind: Kind) -> list[str]:
    """DERIVED, the second value, and the source's values from the third on; a map adds its own."""
    values = [str(value) for value in stated] if isinstance(stated, (list, MultiValue)) else []
    kept = values[2:]
    return ["DERIVED", second, *(kept or ["AXIAL"] * kind.is_map), *([kind.image_type] if kind.is_map else [])]


def _derive_frames(header: Dataset, reference: Dataset, evidence: Dataset, derivation: Derivation, kind: Kind) -> None:
    """What the top level states of a classic image, frame by frame."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    groups = list(header.PerFrameFunctionalGroupsSequence)
    earlier = list(header.get("SourceImageEvidenceSequence") or [])
    header.SourceImageEvidenceSequence = [*earlier, evidence]
    header.ImageType = _frame_type(header.get("ImageType"))
    for group in (*shared, *groups):
        for item in group.get("CTImageFrameTypeSequence") or []:
            item.FrameType = _frame_type(item.get("FrameType"))
    earlier = [item for group in shared for item in group.get("DerivationImageSequence") or []]
    for group in shared:  # a functional group stands in one place only
        group.pop("DerivationImageSequence", None)
    for index, group in enumerate(groups):
        source = copy.deepcopy(reference)
        source.ReferencedFrameNumber = index + 1
        item = Dataset()
        item.DerivationDescription = derivation.describe(kind)
        item.DerivationCodeSequence = [_derivation_code()]
        item.SourceImageSequence = [source]
        group.DerivationImageSequence = [*earlier, *(group.get("DerivationImageSequence") or []), item]


def _frame_type(stated: object) -> list[str]:
    """Four values: value 2 of multi-frame images is PRIMARY by definition, value 4 cannot be empty."""
    values = _image_type(stated, "PRIMARY", KINDS["denoised"])
    return [*values, *["VOLUME", "NONE"][len(values) - 2 :]] if len(values) < 4 else values


def _describe_map(header: Dataset, kind: Kind) -> None:
    """Whole HU in signed words, wherever the source states its own rescale, window and padding."""
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
        place.RescaleSlope, place.RescaleIntercept, place.RescaleType = "1", "0", "HU"
    for tag in [tag for tag in sorted(header.keys()) if tag.group & 0xFF01 == 0x6000 and tag.element == 0x0102]:
        if header[tag].value:  # an overlay in bits of the source's words
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
    """Where the source stands in its study."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = source.SeriesInstanceUID, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.StudyInstanceUID, [series]
    return study


def _equipment(derivation: Derivation, kind: Kind) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = "ct-cncl developers"
    item.ManufacturerModelName = "ct-cncl"
    item.SoftwareVersions = [derivation.version, f"weights {derivation.weights[:32]}"]
    item.ContributionDescription = derivation.describe(kind)
    return item


def _coding_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = _SCHEME, "Codes of ct-cncl"
    item.CodingSchemeResponsibleOrganization = "ct-cncl developers"
    return item


def _derivation_code() -> Dataset:
    return _code("CNCL", _SCHEME, "Noise reduction by content-noise complementary learning")


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
