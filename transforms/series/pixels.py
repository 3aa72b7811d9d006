"""DICOM pixels: words as they lie in the file, the stored values in them, and HU; and new values back into the words."""

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
"""Of 12 bits, which hold all tissue."""
_FIRST_ITEM = b"\xfe\xff\x00\xe0"
"""How compressed pixels start, always little-endian."""


def read_slices(frames: list[Frame], shape: tuple[int, int, int]) -> np.ndarray:
    """HU of all frames, each file opened once.

    Args:
        frames: in slice order.
        shape: (columns, rows, slices).

    Returns:
        (x, y, z) float32 HU, x = column, y = row.

    Raises:
        ScanError: damaged pixels, or a compression that nothing installed decodes.
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
    """float32 HU of a frame's stored values, computed in float64."""
    return (values * frame.slope + frame.intercept).astype(np.float32)


@dataclass(frozen=True)
class PixelLayout:
    """How one slice's words hold its stored values.

    Attributes:
        allocated: bits of a word.
        bits: the lowest bits of a word, which hold the value; the others may hold overlays.
        signed: values are two's complement.
        padding: lowest and highest stored value that is padding, compared with all bits of a word; None where none is stated.
    """

    allocated: int
    bits: int
    signed: bool
    padding: tuple[int, int] | None = None

    @property
    def low(self) -> int:
        """The least value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The greatest value that can be stored."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


class LayoutError(ValueError):
    """Words that hold their values in a way that no CT has; one sentence without the file's name."""


def layout_of(header: Dataset) -> PixelLayout:
    """The layout that a header states.

    Raises:
        LayoutError: one that no CT has.
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
        raise LayoutError(f"expected Pixel Representation 0 or 1 but got {representation}; have the header mended")
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
    """(rows, columns) unsigned words of one frame as they lie in the file, little-endian.

    Raises:
        ScanError: damaged pixels, or a compression that nothing installed decodes.
    """
    try:
        layout = layout_of(dataset)
        word = np.dtype(f"<u{layout.allocated // 8}")
        index = frame.index or 0
        if syntax_of(dataset).is_encapsulated:
            if dataset.PixelData[:4] != _FIRST_ITEM:
                raise ValueError("plain pixels under the label of compressed ones")
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
    """Stored values in words, and which of them are padding.

    Bits beyond the stored ones are dropped and the sign is extended from the highest stored bit, save where a word is
    padding with all its bits.

    Args:
        words: unsigned, any shape.
        layout: of the words.

    Returns:
        int64 values and a bool mask, of the same shape.

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
    if layout.padding is not None:  # stated with fewer bits than a word has
        padded |= (values >= layout.padding[0]) & (values <= layout.padding[1])
    return values, padded


def words_with(
    words: np.ndarray, values: np.ndarray, layout: PixelLayout, kept: np.ndarray, *, before: np.ndarray | None = None
) -> np.ndarray:
    """Words that hold other values; bits beyond the stored ones stay where they hold something of their own.

    Args:
        words: as read.
        values: int64 within the layout's range, the same shape.
        layout: of the words.
        kept: bool; these words stay as they are.
        before: the values in ``words``, where they are known.

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
    """Words that hold their values and nothing else: overlays in bits beyond the stored ones are gone.

    Padding that only the other bits make is all set to one end of the padding's range, lest the range show what was there.

    >>> [hex(word) for word in values_alone(np.array([0x8123, 0x0FFF], np.uint16), PixelLayout(16, 12, signed=False))]
    ['0x123', '0xfff']
    """
    values, _ = values_of(words, layout)
    if layout.padding is not None:
        values = np.where((values < layout.low) | (values > layout.high), layout.padding[0], values)
    return values.astype(f"<i{words.itemsize}").view(words.dtype)


def padding_in_hu(headers: dict[Path, Dataset], frames: list[Frame]) -> tuple[float | None, float | None]:
    """PixelPaddingValue and PixelPaddingRangeLimit in HU; None where not stated, or not the same for all slices."""
    try:
        found = {_frame_padding(headers[frame.path], frame) for frame in frames}
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(frames[0].path, error) from error
    return found.pop() if len(found) == 1 else (None, None)


def padding_among_tissue(headers: dict[Path, Dataset], frames: Sequence[Frame]) -> str:
    """What is odd about padding that a header states at HU which tissue has, where such voxels would be left alone; else empty.

    Raises:
        ScanError: padding that is no number.
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
    """A padding value as the pixels store it: -2000 is often written as 63536, and the other way round."""
    if value is None or value == "":
        return None
    low = int(value) & ((1 << bits) - 1)
    return low - (1 << bits) if signed and low >> (bits - 1) else low


def read_file(path: Path) -> Dataset:
    """A whole DICOM file.

    Raises:
        ScanError: it is damaged.
    """
    try:
        return read_dataset(path)
    except Exception as error:  # as in read_words
        raise damaged(path, error) from error


def _undecodable(dataset: Dataset, frame: Frame, error: Exception) -> ScanError:
    """Say whether a decoder is missing or the file is damaged."""
    if "PixelData" not in dataset:
        return damaged(frame.path, "no pixels")
    try:
        missing = _missing_decoder(dataset)
    except Exception:  # a damaged transfer syntax: the first error says more
        missing = ""
    if missing:
        return ScanError(f"{frame.path}: expected a compression that can be decoded here but got {missing}")
    return damaged(frame.path, error)


def _missing_decoder(dataset: Dataset) -> str:
    """Name of the compression and what to do if nothing installed decodes it, else empty."""
    syntax = syntax_of(dataset)
    if not syntax.is_encapsulated:
        return ""
    try:
        plugins = set(get_decoder(syntax).available_plugins)
    except NotImplementedError:
        return f"{syntax.name}; decompress the file first (dcmconv, gdcmconv --raw)"
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        # Pillow and GDCM stop at 8 bits here; the one plugin that does not is GPL and in no extra of ours.
        able = plugins - {"pillow", "gdcm"}
        return "" if able else f"12-bit {syntax.name}; decompress the file first (dcmdjpeg of DCMTK)"
    return "" if plugins else f"{syntax.name}; install the decoders: pip install 'ct-cncl[dicom]'"
