"""DICOM pixels: from the words in a file to stored values and HU, and from new values back to words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import JPEGExtended12Bit

from ct_cncl.transforms.series.bounded import read_dataset
from ct_cncl.transforms.series.coded_pixels import check_coded_size
from ct_cncl.transforms.series.headers import damaged
from ct_cncl.transforms.series.native_pixels import native_words, refuse_more_items, syntax_of
from ct_cncl.transforms.series.scan import Frame, ScanError
from ct_cncl.transforms.series.values import ONLY_AIR_HU

_HIGHEST_HU = 3071.0
"""Highest value in 12 bits, which cover all tissue."""
_FIRST_ITEM = b"\xfe\xff\x00\xe0"
"""The bytes with which compressed pixels start, always little-endian."""


def read_slices(frames: list[Frame], shape: tuple[int, int, int]) -> np.ndarray:
    """Read the HU of all frames, opening each file once.

    Args:
        frames: the slices in order.
        shape: (columns, rows, slices).

    Returns:
        (x, y, z) float32 HU, x = column, y = row.

    Raises:
        ScanError: the pixels are damaged, or no decoder for their compression is installed.
    """
    hu = np.empty(shape, dtype=np.float32, order="F")
    by_file: dict[Path, list[int]] = {}
    for z, frame in enumerate(frames):
        by_file.setdefault(frame.path, []).append(z)
    for path, places in by_file.items():
        dataset = read_file(path)
        for z in places:
            values, _ = values_of(read_words(dataset, frames[z]), layout_of(dataset))
            hu[..., z] = in_hu(values, frames[z]).T
    return hu


def in_hu(values: np.ndarray, frame: Frame) -> np.ndarray:
    """Convert a frame's stored values to float32 HU, computed in float64."""
    return (values * frame.slope + frame.intercept).astype(np.float32)


@dataclass(frozen=True)
class PixelLayout:
    """How the words of a slice hold its stored values.

    Attributes:
        allocated: bits allocated per word.
        bits: number of low bits in a word that hold the value; the other bits may hold overlays.
        signed: whether values are in two's complement.
        padding: lowest and highest stored value that mean padding, compared with all bits of a word; None if not stated.
    """

    allocated: int
    bits: int
    signed: bool
    padding: tuple[int, int] | None = None

    @property
    def low(self) -> int:
        """The lowest value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The highest value that can be stored."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


class LayoutError(ValueError):
    """The words have a layout that no CT uses; the message is one sentence without the file's name."""


def layout_of(header: Dataset) -> PixelLayout:
    """The pixel layout that a header states.

    Raises:
        LayoutError: the layout is missing, or is one that no CT uses.
    """
    missing = [name for name in ("BitsAllocated", "BitsStored", "PixelRepresentation") if header.get(name) is None]
    if missing:
        raise LayoutError(
            f"expected {missing[0]}, which says how values are stored, but got none; export the series again"
        )
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if allocated not in (8, 16, 32) or not 0 < bits <= allocated or int(header.get("HighBit", bits - 1)) != bits - 1:
        raise LayoutError(
            "expected values in the lowest bits of 8, 16 or 32 (High Bit is Bits Stored - 1) but got "
            f"{bits} of {allocated} bits up to bit {header.get('HighBit')}; programs disagree about which bits those are: have the "
            "header corrected, or export the series again"
        )
    representation = int(header.PixelRepresentation)
    if representation not in (0, 1):
        raise LayoutError(f"expected Pixel Representation 0 or 1 but got {representation}; have the header corrected")
    signed = representation == 1
    ends = [
        _as_stored(header.get(name), allocated, signed=signed)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if ends[0] is None:
        return PixelLayout(allocated, bits, signed)
    other = ends[0] if ends[1] is None else ends[1]
    return PixelLayout(allocated, bits, signed, (min(ends[0], other), max(ends[0], other)))


def read_words(dataset: Dataset, frame: Frame) -> np.ndarray:
    """Read the words of one frame as (rows, columns) unsigned little-endian integers.

    Raises:
        ScanError: the pixels are damaged, or no decoder for their compression is installed.
    """
    try:
        layout = layout_of(dataset)
        word = np.dtype(f"<u{layout.allocated // 8}")
        index = frame.index or 0
        if syntax_of(dataset).is_encapsulated:
            if dataset.PixelData[:4] != _FIRST_ITEM:
                raise ValueError("uncompressed pixels although the transfer syntax says compressed")
            count = int(dataset.get("NumberOfFrames") or 1)
            refuse_more_items(io.BytesIO(dataset.PixelData), count, syntax_of(dataset))
            check_coded_size(
                get_frame(dataset.PixelData, index, number_of_frames=count), syntax_of(dataset), *frame.shape
            )
            decoded = pixel_array(dataset, index=index, correct_unused_bits=False)
            words = decoded.astype(f"<i{word.itemsize}").view(word)
        else:
            words = native_words(dataset, index, layout.allocated)
    except LayoutError as error:
        raise ScanError(f"{frame.path}: {error}") from error
    except Exception as error:  # decoders raise nearly every built-in exception
        raise _undecodable(dataset, frame, error) from error
    if words.shape != frame.shape:
        raise damaged(frame.path, f"pixels of shape {words.shape} where the header states {frame.shape}")
    return words


def values_of(words: np.ndarray, layout: PixelLayout) -> tuple[np.ndarray, np.ndarray]:
    """Extract the stored values from words, and find which of them are padding.

    Bits above the stored ones are dropped and the sign is extended from the highest stored bit, unless the whole word equals
    the padding.

    Args:
        words: unsigned, any shape.
        layout: layout of the words.

    Returns:
        int64 values and a bool mask of the padding, both of the same shape.

    >>> layout = PixelLayout(16, 12, signed=True)
    >>> values_of(np.array([0x0FFF, 0x1002], np.uint16), layout)[0].tolist()
    [-1, 2]
    """
    whole = words.view(f"<i{words.itemsize}" if layout.signed else words.dtype).astype(np.int64)
    padded = np.zeros(words.shape, dtype=bool)
    if layout.padding is not None:
        padded = (whole >= layout.padding[0]) & (whole <= layout.padding[1])
    if layout.bits >= layout.allocated:
        return whole, padded
    values = whole & ((1 << layout.bits) - 1)
    if layout.signed:
        values -= (values >> (layout.bits - 1)) << layout.bits
    values = np.where(padded, whole, values)
    if layout.padding is not None:  # the padding may be stated in the stored bits only
        padded |= (values >= layout.padding[0]) & (values <= layout.padding[1])
    return values, padded


def words_with(
    words: np.ndarray, values: np.ndarray, layout: PixelLayout, kept: np.ndarray, *, before: np.ndarray | None = None
) -> np.ndarray:
    """Put new values into words; bits above the stored ones are kept if they hold more than the extended sign.

    Args:
        words: unsigned, as read.
        values: int64 within the layout's range, the same shape.
        layout: layout of the words.
        kept: bool, the same shape; where true, words are not changed.
        before: the values in ``words`` if they are known; None extracts them.

    Returns:
        Words of the same shape and type.

    >>> layout = PixelLayout(16, 12, signed=True)
    >>> kept = np.array([False, True])
    >>> [hex(word) for word in words_with(np.array([0x1002, 0x0FFF], np.uint16), np.array([-1, 5]), layout, kept)]
    ['0x1fff', '0xfff']
    """
    whole = values.astype(f"<i{words.itemsize}").view(words.dtype)
    if layout.bits == layout.allocated:
        return np.where(kept, words, whole)
    before = values_of(words, layout)[0] if before is None else before
    extended = before.astype(f"<i{words.itemsize}").view(words.dtype)
    if ((extended != words) & ~kept).any():
        mask = words.dtype.type((1 << layout.bits) - 1)
        whole = (words & ~mask) | (whole & mask)
    return np.where(kept, words, whole)


def values_alone(words: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """Words without overlays: the bits above the stored ones hold only the extended sign.

    Padding that is recognised only by these other bits is set to one end of the padding range, so that it cannot reveal what they held.

    >>> [hex(word) for word in values_alone(np.array([0x8123, 0x0FFF], np.uint16), PixelLayout(16, 12, signed=False))]
    ['0x123', '0xfff']
    """
    values, _ = values_of(words, layout)
    if layout.padding is not None:
        values = np.where((values < layout.low) | (values > layout.high), layout.padding[0], values)
    return values.astype(f"<i{words.itemsize}").view(words.dtype)


def padding_in_hu(headers: dict[Path, Dataset], frames: list[Frame]) -> tuple[float | None, float | None]:
    """PixelPaddingValue and PixelPaddingRangeLimit in HU; None if not stated, or not the same for all slices."""
    try:
        found = {_frame_padding(headers[frame.path], frame) for frame in frames}
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(frames[0].path, error) from error
    return found.pop() if len(found) == 1 else (None, None)


def padding_among_tissue(headers: dict[Path, Dataset], frames: Sequence[Frame]) -> str:
    """A warning about padding that a header states within the HU of tissue, since such voxels would not be denoised; else empty.

    Raises:
        ScanError: the padding is not a number.
    """
    try:
        stated = [_frame_padding(headers[frame.path], frame) for frame in frames]
    except Exception as error:  # as above
        raise damaged(frames[0].path, error) from error
    ranges = [sorted(end for end in pair if end is not None) for pair in stated]
    among = [ends for ends in ranges if ends and ends[-1] > ONLY_AIR_HU and ends[0] <= _HIGHEST_HU]
    if not among:
        return ""
    return (
        f"expected padding below {ONLY_AIR_HU:g} HU but the header states {among[0][0]:g} to {among[0][-1]:g} HU: voxels of these values count as "
        "padding and stay as they are"
    )


def _frame_padding(header: Dataset, frame: Frame) -> tuple[float | None, float | None]:
    allocated, signed = int(header.get("BitsAllocated", 16)), int(header.get("PixelRepresentation", 0)) == 1

    def stated(name: str) -> float | None:
        stored = _as_stored(header.get(name), allocated, signed=signed)
        return None if stored is None else stored * frame.slope + frame.intercept

    value = stated("PixelPaddingValue")
    return value, None if value is None else stated("PixelPaddingRangeLimit")


def _as_stored(value: Any, bits: int, *, signed: bool) -> int | None:
    """A padding value in the pixels' own representation: -2000 is often written as 63536, and vice versa."""
    if value is None or value == "":
        return None
    low = int(value) & ((1 << bits) - 1)
    return low - (1 << bits) if signed and low >> (bits - 1) else low


def read_file(path: Path) -> Dataset:
    """Read a whole DICOM file.

    Raises:
        ScanError: the file is damaged.
    """
    try:
        return read_dataset(path)
    except Exception as error:  # as in read_words
        raise damaged(path, error) from error


def _undecodable(dataset: Dataset, frame: Frame, error: Exception) -> ScanError:
    """The error for pixels that cannot be decoded: a decoder is missing, or the file is damaged."""
    if "PixelData" not in dataset:
        return damaged(frame.path, "no pixels")
    try:
        missing = _missing_decoder(dataset)
    except Exception:  # damaged transfer syntax: the original error says more
        missing = ""
    if missing:
        return ScanError(f"{frame.path}: expected a compression that can be decoded here but got {missing}")
    return damaged(frame.path, error)


def _missing_decoder(dataset: Dataset) -> str:
    """The name of the compression and what to do, if no installed decoder supports it; else empty."""
    syntax = syntax_of(dataset)
    if not syntax.is_encapsulated:
        return ""
    try:
        plugins = set(get_decoder(syntax).available_plugins)
    except NotImplementedError:
        return f"{syntax.name}; decompress the file first (dcmconv, gdcmconv --raw)"
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        # Pillow and GDCM support only 8 bits here; the one plugin that supports 12 is GPL and therefore in none of our extras.
        able = plugins - {"pillow", "gdcm"}
        return "" if able else f"12-bit {syntax.name}; decompress the file first (dcmdjpeg of DCMTK)"
    return "" if plugins else f"{syntax.name}; install the decoders: pip install 'ct-cncl[dicom]'"
