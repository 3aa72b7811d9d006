"""Marks inside volume files that identify them as results of this project, even after renaming or without their record.

In NIfTI the mark is in ``intent_name``, a field of 16 characters that CT does not use. In MHA and NRRD it is a key with a value, in
TIFF the description. NPY has no place for a mark.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import nibabel as nib

from ct_cncl.transforms.series.derivation import KINDS
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES

MARK_KEY = "ct-cncl"
"""Key of the mark in MHA and NRRD."""
MARK_LINE = re.compile(rf"^(?:# )?{MARK_KEY}\s*:?=\s*(.*)$", re.MULTILINE)
"""Pattern of the line with the mark in a text header."""
_LONGEST = 16
"""Length of NIfTI's intent_name in characters."""
_INTENT_NAME = {348: 328, 540: 508}
"""Its offset in NIfTI-1 and NIfTI-2, by the size of the header, which is the file's first number."""
_HEAD = 1 << 16


def mark_of(kind: str) -> str:
    """The mark for a kind of result, at most 16 characters.

    >>> mark_of("denoised"), mark_of("disagreement")
    ('ct-cncl denoised', 'ct-cncl disagree')
    """
    return f"{MARK_KEY} {kind}"[:_LONGEST]


def marked(header: nib.Nifti1Header, mark: str) -> nib.Nifti1Header:
    """A copy of a NIfTI header with a mark; an empty mark changes nothing."""
    header = header.copy()
    if mark:
        header["intent_name"] = mark.encode()
    return header


def marked_kind(path: Path) -> str:
    """The kind of denoising result that a volume file is marked as; empty if it has no mark or cannot be read.

    Args:
        path: NIfTI, MHA, NRRD, TIFF or NPY; only its first kilobytes are read.
    """
    name = path.name.lower()
    try:
        if name.endswith((".tif", ".tiff")):
            said = _description(path)
        else:
            with gzip.open(path) if name.endswith(".gz") else path.open("rb") as stream:
                head = stream.read(_HEAD)
            said = _intent(head) if name.endswith(NIFTI_SUFFIXES) else _line(head)
    except (OSError, EOFError, zlib.error):  # reading its voxels will raise the error
        return ""
    return next((kind for kind in KINDS if said == mark_of(kind)), "")


def _intent(head: bytes) -> str:
    sizes = [int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")]
    place = next((_INTENT_NAME[size] for size in sizes if size in _INTENT_NAME), None)
    return "" if place is None else head[place : place + _LONGEST].rstrip(b"\0 ").decode("latin-1")


def _line(head: bytes) -> str:
    """The mark in the text header of MHA and NRRD, which ends where the voxels begin."""
    if not head.startswith((b"NRRD", b"ObjectType", b"NDims")):
        return ""
    text = head.partition(b"\n\n")[0].partition(b"ElementDataFile")[0].decode("latin-1").replace("\r", "")
    found = MARK_LINE.search(text)
    return found.group(1).strip() if found else ""


def _description(path: Path) -> str:
    try:
        import tifffile
    except ImportError:  # without tifffile the file cannot be read as a scan either
        return ""
    try:
        with tifffile.TiffFile(path) as tiff:
            return str(getattr(tiff.pages[0], "description", "")).strip()
    except Exception:  # tifffile raises many kinds of errors on damaged files
        return ""
