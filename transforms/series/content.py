"""One digest for the content of a DICOM series: its attributes and pixels, independent of their layout in files."""

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
    """Digest of everything that the files of a series hold; equal for the same images, whatever the files are called.

    A PACS that sends a study back writes its own file meta information and may encode sequences differently: neither changes
    the digest. An instance that appears twice counts once.

    Args:
        files: the files of one series.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        ScanError: a file is damaged.
    """
    whole = hashlib.sha256()
    for digest in sorted({_instance_digest(path) for path in files}):
        whole.update(digest)
    return whole.hexdigest()


def _instance_digest(path: Path) -> bytes:
    """Digest of one file. Only its header is held in memory; the pixels and what follows them are read piece by piece."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            header: Dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            syntax = header.file_meta.TransferSyntaxUID
            if syntax == DeflatedExplicitVRLittleEndian:
                header = read_dataset(path)
            else:
                stream.read(8 if syntax.is_implicit_VR else 12)  # tag, value representation and length of the pixels
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            _feed(digest, header)
    except OSError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        raise damaged(path, error) from error
    return digest.digest()


def _feed(digest: Any, dataset: Dataset) -> None:
    # All at once and still encoded: pydicom decodes some of them as soon as a sequence is accessed.
    elements = {tag: dataset.get_item(tag) for tag in sorted(dataset.keys())}
    for tag, element in elements.items():
        if tag.element == 0 or tag.group in (0x0002, 0xFFFA, 0xFFFC):  # group lengths, file meta, signatures, padding
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
    """Value representation: as stated or, in implicit VR, from the dictionary.

    Private attributes are only divided into sequences and others, since only some files state more about them.
    """
    stated = getattr(element, "VR", None)
    if tag.is_private:
        return "SQ" if stated == "SQ" else "UN"
    try:
        return str(stated or dictionary_VR(tag))
    except KeyError:  # unknown to this release of pydicom
        return "UN"


def _value(element: Any, representation: str) -> bytes:
    """The encoded value as in the file; text without the padding to an even length."""
    value = element.value
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value.rstrip(b" \0") if representation in _TEXT else value
    parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return "\\".join(map(str, parts)).encode()
