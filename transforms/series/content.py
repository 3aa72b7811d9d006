"""The content of a DICOM series as one digest: attributes and pixels, however they are laid out in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ct_cncl.transforms.series.bounded import read_dataset
from ct_cncl.transforms.series.headers import damaged

_CHUNK = 1 << 22
_TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")


def content_digest(files: Iterable[Path]) -> str:
    """A digest of all that the files of a series hold; equal for the same images whatever their files are called.

    A PACS that sends a study back writes its own file meta and lays sequences out in its own way: neither counts. An
    instance that is there twice counts once.

    Args:
        files: of one series.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        ScanError: a damaged file.
    """
    whole = hashlib.sha256()
    for digest in sorted({_instance_digest(path) for path in files}):
        whole.update(digest)
    return whole.hexdigest()


def _instance_digest(path: Path) -> bytes:
    """Of one file, in the memory of its header: what comes behind is read piece by piece."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            header: Dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            syntax = header.file_meta.TransferSyntaxUID
            if syntax == DeflatedExplicitVRLittleEndian:
                header = read_dataset(path)
            else:
                stream.read(8 if syntax.is_implicit_VR else 12)  # tag, representation and length of the pixels
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            _feed(digest, header)
    except OSError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        raise damaged(path, error) from error
    return digest.digest()


def _feed(digest: Any, dataset: Dataset) -> None:
    # All at once, as they lie in the file: pydicom decodes some as soon as a sequence is looked into.
    elements = {tag: dataset.get_item(tag) for tag in sorted(dataset.keys())}
    for tag, element in elements.items():
        if tag.element == 0 or tag.group in (0x0002, 0xFFFA, 0xFFFC):  # group lengths, file meta, signatures, filling
            continue
        representation = _representation(tag, element)
        digest.update(int(tag).to_bytes(4, "big"))
        if representation == "SQ":
            items = dataset[tag].value or []
            digest.update(b"SQ" + len(items).to_bytes(4, "big"))
            for item in items:
                _feed(digest, item)
        else:
            value = _value(element, representation)
            digest.update(len(value).to_bytes(8, "big"))
            digest.update(value)


def _representation(tag: BaseTag, element: Any) -> str:
    """Stated, or known where implicit; of private attributes no more than that they are sequences, since only some files say it."""
    stated = getattr(element, "VR", None)
    if tag.is_private:
        return "SQ" if stated == "SQ" else "UN"
    try:
        return str(stated or dictionary_VR(tag))
    except KeyError:  # unknown to this release of pydicom
        return "UN"


def _value(element: Any, representation: str) -> bytes:
    """The value as it lies in the file, text without what fills it up to an even length; nothing is decoded."""
    value = element.value
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value.rstrip(b" \0") if representation in _TEXT else value
    parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return "\\".join(map(str, parts)).encode()
