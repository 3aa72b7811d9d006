"""Bounded reading of DICOM files: a small file that would inflate to a huge one is refused before memory is allocated."""

from __future__ import annotations

import zlib
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ct_cncl.transforms.series.scan import ScanError

LARGEST_SIDE = 8192
"""Most pixels along one side of a slice; CT has 512 to 2048."""
_MOST_PACKED = 32
"""How many times larger a deflated file may become: CT deflates to a half or a third, a slice of mostly air to a tenth."""
_SPARE = 64 << 20
_CHUNK = 1 << 20
_META = 4096
"""Number of leading bytes that contain the transfer syntax of a file."""


def read_dataset(path: Path, **options: Any) -> Dataset:
    """Read a data set with ``pydicom.dcmread``, which inflates a deflated file as a whole, after a check of its inflated size.

    Args:
        path: the file.
        options: further arguments of ``pydicom.dcmread``.

    Raises:
        ScanError: the deflated file would grow beyond reason.
    """
    _check_deflated(path)
    return pydicom.dcmread(path, **options)


def read_attributes(path: Path, tags: Sequence[BaseTag], *, defer: int) -> Dataset:
    """Read some attributes of a file, within the bounds of :func:`read_dataset`.

    Args:
        path: the file.
        tags: the attributes to read.
        defer: values of more than this many bytes are read on first access.

    Raises:
        ScanError: the deflated file would grow beyond reason.
        ValueError: the file has one of the attributes twice, of which programs take the first or the last.
    """
    _check_deflated(path)
    with open(path, "rb") as stream:  # noqa: PTH123  pydicom opens deferred values by this stream's name, which must be a string
        return read_partial(stream, _Once(set(tags)), defer_size=defer, specific_tags=list(tags))


class _Once:
    """Callback that pydicom asks before every attribute whether to stop; it refuses an attribute that appears twice.

    Args:
        tags: the attributes that must not appear twice.
    """

    def __init__(self, tags: Container[int]) -> None:
        self.tags, self.seen = tags, set[int]()
        self._begun = False

    def __call__(self, tag: BaseTag, _representation: str | None, _length: int) -> bool:
        if not self._begun:  # pydicom asks twice about the first attribute, because it looks ahead for the encoding
            self._begun = True
        elif tag in self.seen and tag in self.tags:
            raise ValueError(f"{keyword_for_tag(tag) or tag} twice")
        else:
            self.seen.add(tag)
        return False


def _check_deflated(path: Path) -> None:
    with path.open("rb") as stream:
        deflated = str(DeflatedExplicitVRLittleEndian).encode() in stream.read(_META)
    if deflated:
        _check_inflated(path)


def _check_inflated(path: Path) -> None:
    most = _MOST_PACKED * path.stat().st_size + _SPARE
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as stream:
        pydicom.filereader.read_preamble(stream, force=False)
        pydicom.filereader._read_file_meta_info(stream)
        while not inflater.eof and (rest := stream.read(_CHUNK)):
            while rest and size <= most:
                try:
                    size += len(inflater.decompress(rest, _CHUNK))
                except zlib.error:  # damaged: pydicom will raise an error that says so
                    return
                rest = inflater.unconsumed_tail
            if size > most:
                raise ScanError(
                    f"{path}: expected a slice but got a file of {path.stat().st_size >> 10} KiB that would grow beyond {most >> 20} MiB; "
                    "do not trust it"
                )


def check_size(path: Path, rows: int, columns: int) -> None:
    """Refuse slices that are larger than those of any CT scanner before they are decoded.

    Raises:
        ScanError: the slices have more than :data:`LARGEST_SIDE` rows or columns.
    """
    if max(rows, columns) > LARGEST_SIDE:
        raise ScanError(
            f"{path}: expected slices of at most {LARGEST_SIDE} x {LARGEST_SIDE} pixels but got {rows} x {columns}; cut or resample them"
        )
