"""Where an image comes from: a scanner, this program, or other post-processing. A refusal states its reason.

Own marks are the Derivation Code, the Contributing Equipment, the Derivation Description, the Series Description, the coding
scheme and the file meta information, as long as nobody writes it anew; one of them is enough, since archives and de-identification take some away, and so do converters to NIfTI, whose sidecars
keep the Series Description. What others derived is read from Image Type and Frame Type, value 3 and up
(PS3.3 C.7.6.1.1.2, C.8.16.1, C.8.15.3.1). DERIVED alone says nothing: some scanners write it of their originals, and
reformats at full resolution are scans like any other.
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
"""ManufacturerModelName among the Contributing Equipment."""
ORIGIN_TAGS = (
    "DerivationDescription", "DerivationCodeSequence", "ContributingEquipmentSequence", "MonoenergeticEnergyEquivalent",
    "SeriesDescription", "CodingSchemeIdentificationSequence",
)  # fmt: skip
"""What a header must hold besides Image Type and the functional groups to be classified."""
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
"""Words that scanners write of their originals, too."""
_REFORMAT = r"\bMPR|\bCPR\b|\bCURVED\b|\bMULTI ?PLANAR\b|\bREFORMAT|\bRFMT\b|\bRESAMPLED\b"


@dataclass(frozen=True)
class Origin:
    """Where an image comes from.

    Attributes:
        kind: "original", "simulated" (by us, at a lower dose), "result" (of ours) or "derived" (by others).
        what: in words, for one line; empty of an original.
    """

    kind: Literal["original", "simulated", "result", "derived"] = "original"
    what: str = ""

    @property
    def refused(self) -> bool:
        """Not denoised unless somebody insists."""
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
    """What a Series Description says that it is, where it ends as ours do."""
    words = f" {_plain(series.upper())} "
    found = [kind for kind in ALL_KINDS.values() if f" {_plain(_label(kind).upper())} " in words]
    if not found:
        return None
    others = [kind.name for kind in found if kind is not LOW_DOSE]
    return Origin("result", f"result of ct-cncl ({others[-1]})") if others else _SIMULATED


def _label(kind: Kind) -> str:
    return f"{kind.label} CNCL" if kind.name in KINDS else kind.label


def _in_our_words(header: Dataset) -> Origin | None:
    """A header that names our coding scheme and nothing that is in it, or a file that we wrote: all else was taken away."""
    meta = getattr(header, "file_meta", None) or Dataset()
    if _get(meta, "ImplementationClassUID") == IMPLEMENTATION:
        said = _text(meta, "ImplementationVersionName")
        kind = next((kind for kind in ALL_KINDS if mark_of(kind) == said), "denoised")
        return _SIMULATED if kind == LOW_DOSE.name else Origin("result", f"result of ct-cncl ({kind})")
    schemes = {_text(item, "CodingSchemeDesignator") for item in _items(header, "CodingSchemeIdentificationSequence")}
    return Origin("result", "result of ct-cncl (denoised)") if SCHEME in schemes else None


def _kind_in(texts: list[str]) -> str:
    """The last kind that the descriptions name: what was made of a result is what it was made to be."""
    found = [kind.name for text in texts for kind in ALL_KINDS.values() if f": {kind.label}" in text]
    return found[-1] if found else "denoised"


def _derivations(header: Dataset) -> Iterator[Dataset]:
    """The header itself, and what functional groups say of the derivation."""
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
    """Words with one blank between them: MAX_IP and MAX-IP are MAX IP."""
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
    """A value; None where it is damaged: what cannot be read marks nothing."""
    try:
        return place.get(name)
    except Exception:  # pydicom raises nearly every built-in exception on damaged values
        return None


def origin_of_file(path: Path) -> Origin:
    """Classify a volume file: a result of ours says so in its head, or has its record next to it (NPY can say nothing).

    What was converted from DICOM says it in the sidecar that dcm2niix and BIDS keep beside it, that of others too.

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
    """What a sidecar says of the DICOM images that were converted."""
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
    """Scans as scanners made them.

    Args:
        scans: found by a search.
        derived: what that found to be no scan, by file.

    Returns:
        The scans, without single images that were derived; scans that are derived as a whole, and what they are; by the files
        that are kept of a scan, what was left out of it.
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
