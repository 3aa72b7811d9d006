"""Marks by which a volume file says that it is a result of this project, even renamed and without its record.

NIfTI has a field for the meaning of what is stored, ``intent_name`` of 16 characters, which no CT has a use for; MHA and NRRD have keys
and values, TIFF a description. NPY has no room for words.
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
"""Of the mark in MHA and NRRD."""
MARK_LINE = re.compile(rf"^(?:# )?{MARK_KEY}\s*:?=\s*(.*)$", re.MULTILINE)
"""A line of a text header with the mark."""
_LONGEST = 16
"""Characters of NIfTI's intent_name."""
_INTENT_NAME = {348: 328, 540: 508}
"""Where NIfTI-1 and NIfTI-2 have it, by the size of the header, which stands first."""
_HEAD = 1 << 16


def mark_of(kind: str) -> str:
    """What a result of a kind says of itself, in at most 16 characters.

    >>> mark_of("denoised"), mark_of("disagreement")
    ('ct-cncl denoised', 'ct-cncl disagree')
    """
    return f"{MARK_KEY} {kind}"[:_LONGEST]


def marked(header: nib.Nifti1Header, mark: str) -> nib.Nifti1Header:
    """A copy of a NIfTI header with a mark; an empty one changes nothing."""
    header = header.copy()
    if mark:
        header["intent_name"] = mark.encode()
    return header


def marked_kind(path: Path) -> str:
    """The kind of result that a volume file says it is; empty where it says nothing, or cannot be read.

    Args:
        path: NIfTI, MHA, NRRD, TIFF or NPY; a few kilobytes of it are read.
    """
    name = path.name.lower()
    try:
        if name.endswith((".tif", ".tiff")):
            said = _description(path)
        else:
            with gzip.open(path) if name.endswith(".gz") else path.open("rb") as stream:
                head = stream.read(_HEAD)
            said = _intent(head) if name.endswith(NIFTI_SUFFIXES) else _line(head)
    except (OSError, EOFError, zlib.error):  # what reads it for its voxels will say so
        return ""
    return next((kind for kind in KINDS if said == mark_of(kind)), "")


def _intent(head: bytes) -> str:
    sizes = [int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")]
    place = next((_INTENT_NAME[size] for size in sizes if size in _INTENT_NAME), None)
    return "" if place is None else head[place : place + _LONGEST].rstrip(b"\0 ").decode("latin-1")


def _line(head: bytes) -> str:
    """Of MHA and NRRD, whose text ends where the voxels begin."""
    if not head.startswith((b"NRRD", b"ObjectType", b"NDims")):
        return ""
    text = head.partition(b"\n\n")[0].partition(b"ElementDataFile")[0].decode("latin-1").replace("\r", "")
    found = MARK_LINE.search(text)
    return found.group(1).strip() if found else ""


def _description(path: Path) -> str:
    try:
        import tifffile
    except ImportError:  # nothing reads it then
        return ""
    try:
        with tifffile.TiffFile(path) as tiff:
            return str(getattr(tiff.pages[0], "description", "")).strip()
    except Exception:  # tifffile raises many kinds on damaged files
        return ""
