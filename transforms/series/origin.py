"""Where an image comes from: a scanner, this program, or other post-processing.

This program's results are recognised by their Derivation Code, Contributing Equipment, Derivation Description, Series Description,
coding scheme or file meta information. One of them is enough, because archives, de-identification and converters to NIfTI remove
some of them; the sidecars of converters keep the Series Description. Images derived by others are recognised by Image Type and Frame
Type, from value 3 on (PS3.3 C.7.6.1.1.2, C.8.16.1, C.8.15.3.1). DERIVED alone says nothing: some scanners write it in their
originals, and reformats at full resolution are treated like originals.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydicom.dataset import Dataset

from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.series.derivation import (
    ALL_KINDS,
    IMPLEMENTATION,
    KINDS,
    LOW_DOSE,
    SCHEME,
    SIMULATED_CODE,
    Kind,
)
from ct_cncl.transforms.series.marks import mark_of, marked_kind
from ct_cncl.transforms.series.scan import ScanSource

MODEL_NAME = "ct-cncl"
"""ManufacturerModelName in the Contributing Equipment."""
ORIGIN_TAGS = (
    "DerivationDescription", "DerivationCodeSequence", "ContributingEquipmentSequence", "MonoenergeticEnergyEquivalent",
    "SeriesDescription", "CodingSchemeIdentificationSequence",
)  # fmt: skip
"""Attributes needed to classify a header, besides Image Type, SliceThickness and the functional groups."""
_THICK_MM = 3.0
"""A reformat thicker than this averages several reconstructed slices."""
_KINDS = (
    ("maximum intensity projection", r"\b\w*MIP\b|\bMIP|\bMAX ?IP\b|\bMAXIMUM\b|\bPROJECTION IMAGE\b"),
    ("minimum intensity projection", r"\bMIN ?I?P\b|\bMINIP|\bMNIP\b|\bMINIMUM\b"),
    ("average of images", r"\bAVERAGED?\b|\bAVG\b|\bAVE\b|\bA(V|VE|VG)? ?IP\b|\bMEAN( ?IP)?\b|\bMEDIAN\b|\bRAY ?SUM\b"),
    ("screen save", r"\bSCREEN ?(SAVE|SHOT|CAPTURE|DUMP)|\bSECONDARY CAPTURE\b|\bVXTL STATE\b"),
    ("volume rendering", r"\bC?VRT?\b|\bSSD\b|\bRENDER|\bVOL(UME)? ?REN|\bSHADED\b|\bVIRTUAL (ENDO|COLON)|\bFLY ?THROUGH\b"),
    ("difference of images", r"\bSUBTRACT"),
    ("map", r"\bR?CB[FV]\b|\bMTT\b|\bTTP\b|\bTTD\b|\bTMAX\b|\bPERMEABILITY\b|\bPARAMETRIC\b|\bMAP\b|\bQUANTITY\b|\bSTD DEVIATION\b"),
    (
        "virtual monoenergetic image",
        r"\bVMI\b|\bMONO(?!CHROME)|\bKEV ?\d*\b|\b\d+ ?KEV\b",
    ),
    (
        "material image",
        r"\bMAT (SPECIFIC|REMOVED|FRACTIONAL|MODIFIED|VALUE BASED)\b|\bEFF ATOMIC NUM\b|\bZ ?EFF|\bELECTRON DENSITY\b|\bRHO\b|\bMATERIAL\b|\bVNC|\bVIRTUAL (NON ?CONTRAST|UNENHANCED)\b|\bVUE\b|\bIODINE\b|\bPBV\b|\bSUPPR",
    ),
    ("masked or fused image", r"\bMASK(ED)?\b|\bSEGMENT|\bFUSED\b|\bFUSION\b|\bBONE ?(REMOV|SUBTR)"),
)  # fmt: skip
_ONLY_IF_DERIVED = (
    (
        "map",
        r"\bPERFUSION\b|\bBF\b|\bBV\b|\bPS\b|\bDIVISION\b|\bMULTIPLICATION\b|\bNOISE\b|\bDISAGREEMENT\b|^CONTENT$|^REMOVED$",
    ),
    ("material image", r"\bMD\b|\bWATER\b|\bFAT\b|\bHAP\b|\bURIC\b"),
    ("sum of images", r"\bADDITION\b"),
    ("volume rendering", r"\b3D\b"),
    ("image with an overlay", r"\bOVERLAY\b"),
)
"""Words that scanners also write in their originals, so that they count only together with DERIVED."""
_REFORMAT = r"\bMPR|\bCPR\b|\bCURVED\b|\bMULTI ?PLANAR\b|\bREFORMAT|\bRFMT\b|\bRESAMPLED\b"


@dataclass(frozen=True)
class Origin:
    """Where an image comes from.

    Attributes:
        kind: "original", "simulated" (by this program, at a lower dose), "result" (of this program) or "derived" (by others).
        what: a short description for messages; empty for an original.
    """

    kind: Literal["original", "simulated", "result", "derived"] = "original"
    what: str = ""

    @property
    def refused(self) -> bool:
        """Whether the image is denoised only if the user insists."""
        return self.kind in ("result", "derived")


_SIMULATED = Origin("simulated", "low dose simulated by ct-cncl")


def origin_of(header: Dataset) -> Origin:
    """Classify a CT image by its header.

    Args:
        header: with :data:`ORIGIN_TAGS`, ImageType, SliceThickness and the functional groups; pixels are not needed.

    >>> header = Dataset()
    >>> header.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    >>> origin_of(header)
    Origin(kind='derived', what='maximum intensity projection (Image Type MIP)')
    >>> header.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    >>> origin_of(header)
    Origin(kind='original', what='')
    """
    return _own(header) or _of_others(header) or Origin()


def _own(header: Dataset) -> Origin | None:
    codes = [code for place in _derivations(header) for code in _items(place, "DerivationCodeSequence")]
    ours = {_text(code, "CodeValue") for code in codes if _text(code, "CodingSchemeDesignator") == SCHEME}
    texts = [_text(place, "DerivationDescription") for place in _derivations(header)]
    texts += [
        _text(item, "ContributionDescription") or MODEL_NAME
        for item in _items(header, "ContributingEquipmentSequence")
        if _text(item, "ManufacturerModelName") == MODEL_NAME
    ]
    texts = [text for text in texts if text.startswith(MODEL_NAME)]
    if not ours and not texts:
        return _described(_text(header, "SeriesDescription")) or _in_our_words(header)
    simulated = [text for text in texts if "simulat" in text]
    if ours - {SIMULATED_CODE} or len(simulated) < len(texts):
        return Origin("result", f"result of ct-cncl ({_kind_in(texts)})")
    return _SIMULATED


def _described(series: str) -> Origin | None:
    """The origin according to a Series Description that contains the label of one of our results, else None."""
    words = f" {_plain(series.upper())} "
    found = [kind for kind in ALL_KINDS.values() if f" {_plain(_label(kind).upper())} " in words]
    if not found:
        return None
    others = [kind.name for kind in found if kind is not LOW_DOSE]
    return Origin("result", f"result of ct-cncl ({others[-1]})") if others else _SIMULATED


def _label(kind: Kind) -> str:
    return f"{kind.label} CNCL" if kind.name in KINDS else kind.label


def _in_our_words(header: Dataset) -> Origin | None:
    """The origin of an image that lost our codes and texts but still names our coding scheme or our implementation class."""
    meta = getattr(header, "file_meta", None) or Dataset()
    if _get(meta, "ImplementationClassUID") == IMPLEMENTATION:
        said = _text(meta, "ImplementationVersionName")
        kind = next((kind for kind in ALL_KINDS if mark_of(kind) == said), "denoised")
        return _SIMULATED if kind == LOW_DOSE.name else Origin("result", f"result of ct-cncl ({kind})")
    schemes = {_text(item, "CodingSchemeDesignator") for item in _items(header, "CodingSchemeIdentificationSequence")}
    return Origin("result", "result of ct-cncl (denoised)") if SCHEME in schemes else None


def _kind_in(texts: list[str]) -> str:
    """The kind that the descriptions name last: a result made from another result is of the later kind."""
    found = [kind.name for text in texts for kind in ALL_KINDS.values() if f": {kind.label}" in text]
    return found[-1] if found else "denoised"


def _derivations(header: Dataset) -> Iterator[Dataset]:
    """The header itself, and the derivation items in its functional groups."""
    yield header
    for group in _groups(header):
        yield from _items(group, "DerivationImageSequence")


def _groups(header: Dataset) -> Iterator[Dataset]:
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        yield from _items(header, name)


def _of_others(header: Dataset) -> Origin | None:
    stated = [_values(header, "ImageType")]
    for group in _groups(header):
        stated += [_values(item, "FrameType") for item in _items(group, "CTImageFrameTypeSequence")]
    for values in stated:
        for rules in (_KINDS, _ONLY_IF_DERIVED if values[:1] == ["DERIVED"] else ()):
            for value in values[2:]:
                what = next((what for what, pattern in rules if re.search(pattern, _plain(value))), "")
                if what:
                    return Origin("derived", f"{what} (Image Type {value})")
    if _get(header, "MonoenergeticEnergyEquivalent") not in (None, ""):
        return Origin("derived", "virtual monoenergetic image")
    thickness = _thickness(header)
    reformat = [value for values in stated for value in values[2:] if re.search(_REFORMAT, _plain(value))]
    thick = any("THICK" in value or "SLAB" in value for values in stated for value in values[2:])
    if reformat and (thickness > _THICK_MM or thick):
        return Origin("derived", f"reformat in slabs of {thickness:g} mm (Image Type {reformat[0]})")
    return None


def _plain(value: str) -> str:
    """The words of a text with single spaces between them, so that MAX_IP and MAX-IP become MAX IP."""
    return " ".join(re.split(r"[^A-Z0-9]+", value))


def _thickness(header: Dataset) -> float:
    places = [header, *(item for group in _groups(header) for item in _items(group, "PixelMeasuresSequence"))]
    stated = [str(_get(place, "SliceThickness") or "") for place in places]
    return next((float(text) for text in stated if re.fullmatch(r"[0-9.]+(E[+-]?\d+)?", text.strip().upper())), 0.0)


def _items(place: Dataset, name: str) -> list[Dataset]:
    value = _get(place, name)
    return list(value) if value is not None and not isinstance(value, (str, bytes)) else []


def _values(place: Dataset, name: str) -> list[str]:
    value = _get(place, name) or ""
    return [str(each).strip().upper() for each in ([value] if isinstance(value, str) else value)]


def _text(place: Dataset, name: str) -> str:
    return str(_get(place, name) or "").strip()


def _get(place: Dataset, name: str) -> Any:
    """A value; None if it is missing or damaged, since an unreadable value identifies nothing."""
    try:
        return place.get(name)
    except Exception:  # pydicom raises nearly every built-in exception on damaged values
        return None


def origin_of_file(path: Path) -> Origin:
    """Classify a volume file.

    A result of this program has a mark in its header (NPY has none) or its record next to it. A NIfTI file that was converted from
    DICOM is classified by the sidecar that dcm2niix and BIDS put next to it, whoever derived the images.

    Args:
        path: NIfTI, MHA, NRRD, TIFF or NPY.
    """
    said = marked_kind(path)
    if said:
        return Origin("result", f"result of ct-cncl ({said})")
    names = [f"{path.name}.json"]
    for kind in KINDS:
        before, mark, suffix = path.name.rpartition(f"_{kind}")
        if mark:
            names.append(f"{before}_denoised{suffix}.json")
    for name in names:
        results = _recorded(path.with_name(name))
        kind = next((kind for kind, result in results.items() if PurePosixPath(str(result)).name == path.name), "")
        if kind in KINDS:
            return Origin("result", f"result of ct-cncl ({kind})")
    return _beside(path.with_name(f"{path.name.partition('.nii')[0]}.json")) if ".nii" in path.name else Origin()


def _beside(sidecar: Path) -> Origin:
    """The origin of converted DICOM images according to their sidecar."""
    stated = _read(sidecar)
    header = Dataset()
    values = stated.get("ImageType")
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        header.ImageType = [value.replace("\\", " ") for value in values]
    if isinstance(stated.get("SliceThickness"), (int, float)):
        header.SliceThickness = stated["SliceThickness"]
    header.SeriesDescription = str(stated.get("SeriesDescription") or "").replace("\\", " ")
    found = origin_of(header)
    ours = stated.get("ManufacturersModelName") == MODEL_NAME and found.kind not in ("result", "simulated")
    return Origin("result", "result of ct-cncl (denoised)") if ours else found


def without_derived(
    scans: Iterable[ScanSource], derived: Mapping[Path, str]
) -> tuple[list[ScanSource], dict[ScanSource, str], dict[tuple[Path, ...], list[str]]]:
    """Separate original scans from derived images.

    Args:
        scans: the scans that a search found.
        derived: descriptions of derived images by file, from the same search.

    Returns:
        The original scans, without their derived images; the scans that consist of derived images only, with what they are; and
        descriptions of the images that were left out of a scan, by the files that were kept.
    """
    originals: list[ScanSource] = []
    refused: dict[ScanSource, str] = {}
    left_out: dict[tuple[Path, ...], list[str]] = {}
    for scan in scans:
        marked = [derived[file] for file in scan.files if file in derived]
        kept = tuple(file for file in scan.files if file not in derived)
        if not kept:
            refused[scan] = marked[0]
            continue
        originals.append(replace(scan, files=kept))
        if marked:
            left_out[kept] = [f"left out {count} x {what}" for what, count in sorted(Counter(marked).items())]
    return originals, refused, left_out


def _recorded(path: Path) -> dict[str, Any]:
    record = _read(path)
    results = record.get("result") if "weights" in record else None
    return results if isinstance(results, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
