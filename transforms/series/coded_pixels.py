"""Checks the size that a compressed frame states, without decoding it: decoders crop or wrap a frame that does not fit the header."""

from __future__ import annotations

import struct

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

_SIZE_MARK = b"\xff\x4f\xff\x51"
"""First bytes of a JPEG 2000 code stream (ISO/IEC 15444-1, A.5.1)."""
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers of segments that state the size (ISO/IEC 10918-1, B.1.1.3; for JPEG-LS, 14495-1)."""
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no length follows."""


def check_coded_size(frame: bytes, syntax: UID, rows: int, columns: int) -> None:
    """Refuse a compressed frame whose size differs from the header's.

    Args:
        frame: compressed data of one frame.
        syntax: its transfer syntax.
        rows: number of rows in the header.
        columns: number of columns in the header.

    Raises:
        ValueError: the frame has another size. In run-length coding, zeros after the last row are not counted as pixels.
    """
    if syntax == RLELossless:
        _check_runs(frame, rows, columns)
        return
    found = None
    if syntax in JPEG2000TransferSyntaxes or frame.startswith(_SIZE_MARK):
        found = _size_of_jpeg_2000(frame)
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        found = _size_of_jpeg(frame)
    if found is not None and found != (rows, columns):
        raise ValueError(
            f"compressed pixels of {found[0]} rows and {found[1]} columns where the header states {rows} and {columns}"
        )


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int] | None:
    at = frame.find(_SIZE_MARK)
    if at < 0 or len(frame) < at + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
    return bottom - top, right - left


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
        elif marker in _JPEG_SIZES:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return (rows, columns) if rows else None  # 0: a later marker states the number of rows
        else:
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _check_runs(frame: bytes, rows: int, columns: int) -> None:
    """Refuse run-length coded pixels beyond the last row.

    Run-length coding (PS3.5, G.3) states no size. Therefore the last plane, which holds the low bytes, is decoded one row past its end.
    """
    count, *starts = struct.unpack_from("<16L", frame.ljust(64, b"\0"))
    if not 0 < count < len(starts):
        return  # damaged: the decoder will raise an error that says so
    rest = _unrolled(frame[starts[count - 1] :], (rows + 1) * columns)[rows * columns :]
    if len(rest) >= columns and rest.strip(b"\0"):
        raise ValueError(f"more compressed pixels than the {rows} rows and {columns} columns that the header states")


def _unrolled(segment: bytes, most: int) -> bytes:
    """Decode a run-length coded plane until it has at least ``most`` bytes."""
    parts, at, size = [], 0, 0
    while at + 1 < len(segment) and size < most:
        head = segment[at]
        if head < 128:
            parts.append(segment[at + 1 : at + 2 + head])
            at += head + 2
        else:
            parts.append(segment[at + 1 : at + 2] * ((257 - head) % 129))  # 128 stands for nothing
            at += 1 if head == 128 else 2
        size += len(parts[-1])
    return b"".join(parts)
