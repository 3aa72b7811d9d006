"""DICOM files read within bounds: how large a small file would become is known before memory is allocated."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ct_cncl.transforms.series.scan import ScanError

LARGEST_SIDE = 8192
"""Pixels along a side of a slice; CT has 512 to 2048."""
_MOST_PACKED = 32
"""CT deflates to a half or a third; where it is mostly air, to a tenth."""
_SPARE = 64 << 20
_CHUNK = 1 << 20
_META = 4096
"""Bytes in which a file's transfer syntax stands."""


def read_dataset(path: Path, **options: Any) -> Dataset:
    """``pydicom.dcmread``, which inflates a deflated file as a whole, of files that grow within reason.

    Raises:
        ScanError: a deflated file that would grow beyond reason.
    """
    with path.open("rb") as stream:
        deflated = str(DeflatedExplicitVRLittleEndian).encode() in stream.read(_META)
    if deflated:
        _check_inflated(path)
    return pydicom.dcmread(path, **options)


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
                except zlib.error:  # damaged: the reader says so
                    return
                rest = inflater.unconsumed_tail
            if size > most:
                raise ScanError(
                    f"{path}: expected a slice but got a file of {path.stat().st_size >> 10} KiB that would grow beyond {most >> 20} MiB; "
                    "do not trust it"
                )


def check_size(path: Path, rows: int, columns: int) -> None:
    """Refuse slices larger than any CT's before they are decoded.

    Raises:
        ScanError: naming the size.
    """
    if max(rows, columns) > LARGEST_SIDE:
        raise ScanError(
            f"{path}: expected slices of at most {LARGEST_SIDE} x {LARGEST_SIDE} pixels but got {rows} x {columns}; cut or resample them"
        )
