"""Finds the bytes of a frame in a file, even if the stated transfer syntax is wrong.

pydicom reads a data set in the encoding that it detects, whatever the file states, so the pixels must be found the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, BinaryIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

_PIXEL_TAG = {True: b"\xe0\x7f\x10\x00", False: b"\x7f\xe0\x00\x10"}
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """Location and byte order of the pixels in a file.

    Attributes:
        start: offset of the first byte in the file.
        length: length in bytes; None if it is undefined, as for compressed pixels.
        little: whether the pixels are stored in little-endian order.
        word_swapped: whether 8-bit pixels are stored in big-endian 16-bit words, so that each pair of bytes is swapped.
    """

    start: int
    length: int | None
    little: bool
    word_swapped: bool

    def read(self, stream: IO[bytes], offset: int, size: int) -> bytes:
        """Read bytes of the pixels; they may start in the middle of a word.

        Args:
            stream: the file.
            offset: first byte, counted from the start of the pixels.
            size: number of bytes.

        Raises:
            ValueError: the file ends before the last byte.
        """
        first = offset - offset % 2 if self.word_swapped else offset
        wanted = offset - first + size
        stream.seek(self.start + first)
        data = stream.read(wanted + wanted % 2 if self.word_swapped else wanted)
        if self.word_swapped:
            data = swapped(data, 2)
        part = data[offset - first :][:size]
        if len(part) < size:
            raise ValueError(f"{len(part)} bytes of pixels where the header states {size}")
        return part


def find_pixels(stream: IO[bytes], *, little: bool, allocated: int) -> PixelElement:
    """Find the pixels that start at the current position of a stream.

    Args:
        stream: positioned at the tag of the pixels.
        little: whether the data set was read as little-endian.
        allocated: bits allocated per word.

    Raises:
        ValueError: no pixels start there.
    """
    at = stream.tell()
    head = stream.read(12)
    if head[:4] != _PIXEL_TAG[little]:
        raise ValueError("no pixels")
    explicit = head[4:6] in (b"OB", b"OW")  # cannot be a length: lengths are even, and the code of "O" is odd
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little" if little else "big")
    in_words = not little and allocated == 8 and head[4:6] == b"OW"
    return PixelElement(at + (12 if explicit else 8), None if length == _UNDEFINED else length, little, in_words)


def swapped(data: bytes, width: int) -> bytes:
    """Reverse the bytes of each word of ``width`` bytes; an incomplete word at the end is kept.

    >>> swapped(b"abcde", 2)
    b'badce'
    """
    whole = len(data) - len(data) % width
    words = np.frombuffer(data, np.uint8, whole).reshape(-1, width)
    return words[:, ::-1].tobytes() + data[whole:]


def native_words(dataset: Dataset, index: int, allocated: int) -> np.ndarray:
    """Return a frame of uncompressed pixels in memory as (rows, columns) little-endian unsigned words.

    Args:
        dataset: data set with its pixels.
        index: number of the frame, from 0.
        allocated: bits allocated per word.

    Raises:
        ValueError: the number of pixels is not what the header states, or the pixels are compressed although the transfer syntax
            says otherwise.
    """
    element = dataset["PixelData"]
    if element.is_undefined_length:
        raise ValueError("compressed pixels although the transfer syntax says uncompressed")
    little = is_little_endian(dataset)
    shape = (int(dataset.Rows), int(dataset.Columns))
    word = np.dtype(f"<u{allocated // 8}")
    size = shape[0] * shape[1] * word.itemsize
    frames = int(dataset.get("NumberOfFrames") or 1)
    data = element.value or b""
    refuse_more_pixels(data[frames * size :], len(data), frames * size, size, shape[1] * word.itemsize)
    if not little and allocated == 8 and element.VR == "OW":
        data = swapped(data, 2)
    stored = word if little else word.newbyteorder(">")
    return np.frombuffer(data, stored, shape[0] * shape[1], index * size).astype(word).reshape(shape)


def refuse_more_pixels(rest: bytes, length: int, stated: int, frame: int, row: int) -> None:
    """Refuse more pixels than the header states: another frame, or rows that are not all zeros.

    Args:
        rest: bytes after the pixels that the header states.
        length: number of bytes of all pixels.
        stated: number of bytes that the header states.
        frame: number of bytes of one frame.
        row: number of bytes of one row.

    Raises:
        ValueError: there are more pixels.
    """
    if len(rest) >= frame or (len(rest) >= row and rest.strip(b"\0")):
        raise ValueError(f"{length} bytes of pixels where the header states {stated}")


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax of a data set; if its file states none, the uncompressed one in which it was read."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def is_little_endian(dataset: Dataset) -> bool:
    """Whether a data set was read as little-endian; for one created in memory, whether its transfer syntax is."""
    little = dataset.original_encoding[1]
    return bool(syntax_of(dataset).is_little_endian) if little is None else bool(little)


def refuse_more_items(stream: BinaryIO, frames: int, syntax: UID) -> None:
    """Refuse more compressed frames than the header states, which would be lost without notice.

    The frames are counted by the offset table. Without one they can be counted only in run-length coding, which has one item per
    frame; in other syntaxes a frame may have several items.

    Args:
        stream: positioned at the items.
        frames: number of frames that the header states.
        syntax: transfer syntax of the file.

    Raises:
        ValueError: there are more frames.
    """
    table = parse_basic_offsets(stream)
    found = len(table) or (parse_fragments(stream)[0] if syntax == RLELossless else 0)
    if found > frames:
        raise ValueError(f"{found} compressed frames where the header states {frames}")
