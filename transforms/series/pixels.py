"""DICOM pixels: stored values decoded, made HU slice by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import JPEGExtended12Bit

from ct_cncl.transforms.series.headers import damaged
from ct_cncl.transforms.series.scan import Frame, ScanError


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
        dataset = _read(path)
        for z in places:
            frame = frames[z]
            stored = stored_values(dataset, frame)
            hu[..., z] = (stored.astype(np.float64) * frame.slope + frame.intercept).T
    return hu


def stored_values(dataset: Dataset, frame: Frame) -> np.ndarray:
    """Stored values of one frame, (rows, columns) integers.

    Bits beyond BitsStored are dropped (they may hold overlays) and the sign is extended from the highest stored bit,
    save where a pixel equals PixelPaddingValue with all its bits.

    Raises:
        ScanError: damaged pixels, or a compression that nothing installed decodes.
    """
    try:
        values = pixel_array(dataset, index=frame.index or 0)
        bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
        signed = int(dataset.PixelRepresentation) == 1
        padding = _as_stored(dataset.get("PixelPaddingValue"), allocated, signed=signed)
    except Exception as error:  # decoders raise nearly every built-in exception
        raise _undecodable(dataset, frame, error) from error
    if values.shape != frame.shape:
        raise damaged(frame.path, f"pixels of shape {values.shape} where the header states {frame.shape}")
    if bits >= allocated:
        return values
    wide = values.astype(np.int64)
    kept = wide & ((1 << bits) - 1)
    if signed:
        kept = kept - ((kept >> (bits - 1)) << bits)
    return kept if padding is None else np.where(wide == padding, wide, kept)


def padding_in_hu(headers: dict[Path, Dataset], frames: list[Frame]) -> tuple[float | None, float | None]:
    """PixelPaddingValue and PixelPaddingRangeLimit in HU; None where not stated, or not the same for all slices."""
    try:
        found = {_frame_padding(headers[frame.path], frame) for frame in frames}
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(frames[0].path, error) from error
    return found.pop() if len(found) == 1 else (None, None)


def _frame_padding(header: Dataset, frame: Frame) -> tuple[float | None, float | None]:
    allocated, signed = int(header.get("BitsAllocated", 16)), int(header.get("PixelRepresentation", 0)) == 1

    def in_hu(name: str) -> float | None:
        stored = _as_stored(header.get(name), allocated, signed=signed)
        return None if stored is None else stored * frame.slope + frame.intercept

    value = in_hu("PixelPaddingValue")
    return value, None if value is None else in_hu("PixelPaddingRangeLimit")


def _as_stored(value: Any, bits: int, *, signed: bool) -> int | None:
    """A padding value as the pixels store it: -2000 is often written as 63536, and the other way round."""
    if value is None or value == "":
        return None
    low = int(value) & ((1 << bits) - 1)
    return low - (1 << bits) if signed and low >> (bits - 1) else low


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except Exception as error:  # as in stored_values
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
    syntax = dataset.file_meta.TransferSyntaxUID
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
