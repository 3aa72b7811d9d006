"""Pixels that are not decoded yet: which bytes of a file are a frame, whatever its transfer syntax claims of them.

A label may be wrong: pydicom reads a data set by the encoding it finds, and the pixels must be found the same way.
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
    """Where the pixels of a file lie.

    Attributes:
        start: of their first byte in the file.
        length: bytes; None where the length is undefined, as that of compressed pixels is.
        little: they are stored in little-endian order.
        word_swapped: bytes that lie in big-endian words of 16 bits: each pair is swapped.
    """

    start: int
    length: int | None
    little: bool
    word_swapped: bool

    def read(self, stream: IO[bytes], offset: int, size: int) -> bytes:
        """Bytes of the pixels, a frame that starts in the middle of a word included.

        Raises:
            ValueError: the file ends before them.
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
    """The pixels that start where a stream stands.

    Args:
        stream: at the tag of the pixels.
        little: the byte order in which the data set was read.
        allocated: bits of a word.

    Raises:
        ValueError: no pixels start there.
    """
    at = stream.tell()
    head = stream.read(12)
    if head[:4] != _PIXEL_TAG[little]:
        raise ValueError("no pixels")
    explicit = head[4:6] in (b"OB", b"OW")  # never a length: those are even, and b"O" is odd
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little" if little else "big")
    in_words = not little and allocated == 8 and head[4:6] == b"OW"
    return PixelElement(at + (12 if explicit else 8), None if length == _UNDEFINED else length, little, in_words)


def swapped(data: bytes, width: int) -> bytes:
    """Bytes with each word of ``width`` turned round; what is left over at the end stays.

    >>> swapped(b"abcde", 2)
    b'badce'
    """
    whole = len(data) - len(data) % width
    words = np.frombuffer(data, np.uint8, whole).reshape(-1, width)
    return words[:, ::-1].tobytes() + data[whole:]


def native_words(dataset: Dataset, index: int, allocated: int) -> np.ndarray:
    """(rows, columns) little-endian unsigned words of a frame whose pixels are in memory.

    Raises:
        ValueError: pixels of another number than the header states, or compressed ones behind a label that denies it.
    """
    element = dataset["PixelData"]
    if element.is_undefined_length:
        raise ValueError("compressed pixels under the label of plain ones")
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
    """Refuse pixels behind those that the header counts: a frame, or rows that are not filled with zeros.

    Args:
        rest: what stands behind them.
        length: bytes of all pixels.
        stated: bytes of those that the header counts.
        frame: bytes of one frame.
        row: bytes of one row.

    Raises:
        ValueError: there are such.
    """
    if len(rest) >= frame or (len(rest) >= row and rest.strip(b"\0")):
        raise ValueError(f"{length} bytes of pixels where the header states {stated}")


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax of a data set; where its file states none, the plain one in which it was read."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def is_little_endian(dataset: Dataset) -> bool:
    """The byte order that a data set was read in; of one made in memory, what its transfer syntax says."""
    little = dataset.original_encoding[1]
    return bool(syntax_of(dataset).is_little_endian) if little is None else bool(little)


def refuse_more_items(stream: BinaryIO, frames: int, syntax: UID) -> None:
    """Refuse compressed pixels of more frames than the header counts, which would be lost without a word.

    The offset table tells them, or else the items of run-length coding, which has one for each frame; elsewhere a frame may have several.

    Args:
        stream: at the items.
        frames: that the header counts.
        syntax: of the file.

    Raises:
        ValueError: there are more.
    """
    table = parse_basic_offsets(stream)
    found = len(table) or (parse_fragments(stream)[0] if syntax == RLELossless else 0)
    if found > frames:
        raise ValueError(f"{found} compressed frames where the header states {frames}")
