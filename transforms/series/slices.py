"""Reads scans slice by slice, so that memory does not grow with their length: the network's input, and what the writer needs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.series.acquisition import Acquisition, read_acquisition
from ct_cncl.transforms.series.dicom import Series, open_stacks
from ct_cncl.transforms.series.headers import damaged
from ct_cncl.transforms.series.native_pixels import find_pixels, refuse_more_items, refuse_more_pixels, syntax_of
from ct_cncl.transforms.series.orientation import SliceOrder, slices_last
from ct_cncl.transforms.series.phases import Phases
from ct_cncl.transforms.series.pixels import (
    PixelLayout,
    in_hu,
    layout_of,
    padding_among_tissue,
    read_file,
    read_words,
    values_of,
)
from ct_cncl.transforms.series.scan import Frame, ScanError, ScanSource, voxel_spacing
from ct_cncl.transforms.series.volume_file import VolumeFile, open_volume

_SAME_PLACE = 0.01  # mm
_PIXEL_TAGS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A DICOM slice as stored in its file.

    Attributes:
        dataset: the data set of the file; without pixels for enhanced CT.
        frame: position and rescale of the slice.
        layout: layout of its words.
        words: (rows, columns), unsigned words.
        values: (rows, columns) int64, stored values.
        padded: (rows, columns) bool, padding that the file states.
    """

    dataset: Dataset
    frame: Frame
    layout: PixelLayout
    words: np.ndarray
    values: np.ndarray
    padded: np.ndarray


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as a network sees it.

    Attributes:
        hu: (columns, rows) float32 HU, oriented by :func:`ct_cncl.transforms.series.slices_last`.
        padded: (columns, rows) bool, scanner padding, which results do not change.
        stored: what a writer needs: a StoredFrame, or the stored values of a volume file, (x, y, z) with one axis of length 1.
    """

    hu: np.ndarray
    padded: np.ndarray
    stored: Any = field(repr=False)


class Slices(Protocol):
    """A scan whose slices are read one by one, in the order in which they are written."""

    source: ScanSource
    count: int
    """Number of slices."""
    order: SliceOrder
    """How stored axes become columns, rows and slices."""
    spacing: np.ndarray
    """(3,) voxel size in mm along columns, rows and slices; for unevenly spaced slices the mean."""
    step: float
    """Usual distance in mm from one slice to the next; gaps and several phases at one position do not change it."""
    problems: list[str]
    """Messages about the scan's geometry; each slice can still be used."""
    acquisition: Acquisition | None
    """Acquisition parameters; None if the format does not state them."""

    def read(self, number: int) -> Slice:
        """Read one slice, numbered from 0."""

    def place(self, number: int) -> int:
        """The index of a slice along the slice axis of the stored volume."""

    def neighbour(self, number: int, steps: int) -> int:
        """The slice ``steps`` positions towards the patient's left, back or head; the first and last slices repeat.

        If several slices lie at that position, it is the one of the same phase.
        """


def open_slices(source: ScanSource, scratch: Path, *, check_hu: bool = True, axis: int | None = None) -> Slices:
    """Open a scan; only headers are kept in memory.

    Args:
        source: from :func:`ct_cncl.transforms.series.find_scans`.
        scratch: an existing folder for unpacked data; it must exist as long as the slices are used.
        check_hu: refuse DICOM values that are stated to be in other units than HU.
        axis: stored axis of a volume file's slices; None determines it from the geometry.

    Raises:
        ScanError: the scan is damaged, its geometry is uncertain, or its values are not HU.
    """
    if source.kind == "dicom":
        return DicomSlices(open_stacks(source, check_hu=check_hu), scratch)
    return VolumeSlices(source, open_volume(source.kind, source.path, scratch), axis=axis)


class VolumeSlices:
    """The slices of a volume file.

    Args:
        source: the scan, for names and messages.
        volume: the opened file.
        axis: stored axis of the slices; None determines it from the geometry.
    """

    def __init__(self, source: ScanSource, volume: VolumeFile, *, axis: int | None = None) -> None:
        self.source = source
        self.volume = volume
        self.order = slices_last(volume.affine, volume.shape, axis=axis)
        self.count = volume.shape[self.order.axis]
        self.spacing = voxel_spacing(self.order.affine)
        self.step = float(self.spacing[2])
        self.problems = list(volume.problems)
        self.acquisition: Acquisition | None = None

    def read(self, number: int) -> Slice:
        """Read one slice, numbered from 0.

        Raises:
            ScanError: a value is not finite.
        """
        place: list[slice] = [slice(None)] * 3
        place[self.order.axis] = slice(number, number + 1)
        stored = np.array(self.volume.block()[tuple(place)])  # a copy, so that the memory map is released
        hu = (stored.astype(np.float64) * self.volume.slope + self.volume.inter).astype(np.float32)
        turned = np.ascontiguousarray(self.order.apply(hu)[..., 0])
        _check_finite(turned, self.source.path, number)
        return Slice(turned, padding_mask(turned), stored)

    def place(self, number: int) -> int:
        """See :class:`Slices`."""
        return number

    def neighbour(self, number: int, steps: int) -> int:
        """See :class:`Slices`."""
        return _along(self.order, number, steps, self.count)


class DicomSlices:
    """The slices of a DICOM series: classic images in order along the normal, multi-frame files in the order of their frames.

    Args:
        stacks: the opened series, with one stack for each orientation, size and pixel spacing.
        scratch: an existing folder for inflated multi-frame files.

    Raises:
        ScanError: the slices differ in size once they are oriented for the network.
    """

    def __init__(self, stacks: Sequence[Series], scratch: Path) -> None:
        self.series = stacks[0]
        self.source = self.series.source
        self._stacks = stacks
        self._orders = [slices_last(stack.affine, stack.shape, axis=2) for stack in stacks]
        self._phases = [Phases(stack.frames, stack.headers) for stack in stacks]
        _refuse_sizes(self._orders, stacks)
        self.order = self._orders[0]
        self.spacing = voxel_spacing(self.order.affine)
        self.step = _usual_step(stacks) or float(self.spacing[2])
        self.problems = _problems(stacks)
        self.acquisition: Acquisition | None = read_acquisition(list(self.series.headers.values()))
        along = [frame for stack in stacks for frame in stack.frames]
        if any(frame.index is not None for frame in along):
            along.sort(key=lambda frame: (str(frame.path), frame.index or 0))
        self.frames = along
        self.count = len(along)
        self._places = {
            (frame.path, frame.index): (k, place)
            for k, stack in enumerate(stacks)
            for place, frame in enumerate(stack.frames)
        }
        self._number = {(frame.path, frame.index): number for number, frame in enumerate(along)}
        self._files: dict[Path, _MultiFrame] = {}
        self._scratch = scratch

    def order_of(self, frame: Frame) -> SliceOrder:
        """How a slice is oriented; it differs between slices only in series with several orientations."""
        return self._orders[self._places[frame.path, frame.index][0]]

    def pixel(self, number: int) -> tuple[float, float]:
        """(dx, dy) in mm: the pixel size of a slice as :meth:`read` returns it."""
        spacing = voxel_spacing(self.order_of(self.frames[number]).affine)
        return round(float(spacing[0]), 6), round(float(spacing[1]), 6)

    def read(self, number: int) -> Slice:
        """Read one slice, numbered from 0.

        Raises:
            ScanError: the pixels are damaged or not finite, or no decoder for their compression is installed.
        """
        frame = self.frames[number]
        if frame.index is None:
            dataset = pixels = read_file(frame.path)
        else:
            if frame.path not in self._files:
                self._files = {frame.path: _MultiFrame(frame.path, self._scratch)}
            dataset, pixels = self._files[frame.path].header, self._files[frame.path].pixels(frame.index)
        words = read_words(pixels, frame if frame.index is None else replace(frame, index=0))
        order = self.order_of(frame)
        layout = layout_of(pixels)
        values, padded = values_of(words, layout)
        turned = np.ascontiguousarray(order.apply(in_hu(values, frame).T[..., None])[..., 0])
        _check_finite(turned, frame.path, number)
        stated = order.apply(padded.T[..., None])[..., 0]
        stored = StoredFrame(dataset, frame, layout, words, values, padded)
        return Slice(turned, stated | padding_mask(turned), stored)

    def place(self, number: int) -> int:
        """See :class:`Slices`; with several orientations, the index within the slice's own stack."""
        frame = self.frames[number]
        return self._places[frame.path, frame.index][1]

    @property
    def directions(self) -> int:
        """Number of different orientations or pixel spacings; more than one in radial reformats."""
        return len(self._stacks)

    @property
    def phase_of_each(self) -> np.ndarray:
        """(slices,) phase number of each slice, from 0, in the order of :attr:`frames`."""
        places = [self._places[frame.path, frame.index] for frame in self.frames]
        return np.array([self._phases[stack].phase[place] for stack, place in places])

    def neighbour(self, number: int, steps: int) -> int:
        """See :class:`Slices`."""
        frame = self.frames[number]
        stack, place = self._places[frame.path, frame.index]
        order = self._orders[stack]
        way = int(order.forward[order.axis, 1]) * steps
        other = self._stacks[stack].frames[self._phases[stack].neighbour(place, way)]
        return self._number[other.path, other.index]


def _usual_step(stacks: Sequence[Series]) -> float:
    """Median distance in mm between neighbouring slice positions of all stacks; 0 if each stack has only one position."""
    steps: list[float] = []
    for stack in stacks:
        orientation = stack.frames[0].orientation
        normal = np.cross(orientation[:3], orientation[3:])
        gaps = np.diff(np.sort([float(frame.position @ normal) for frame in stack.frames]))
        steps += gaps[gaps > _SAME_PLACE].tolist()
    return float(np.median(steps)) if steps else 0.0


def _problems(stacks: Sequence[Series]) -> list[str]:
    """Messages about the slices of a series, without repetition."""
    copies = len(stacks[0].copies)
    found = [f"left out second copies of {counted(copies, 'image')}" if copies else ""]
    found.append(f"expected slices in one direction but got {len(stacks)}" if len(stacks) > 1 else "")
    found += [problem for stack in stacks for problem in (stack.doubled, stack.irregular)]
    found += [padding_among_tissue(stack.headers, stack.frames) for stack in stacks]
    places = {str(header.get("FrameOfReferenceUID") or "") for stack in stacks for header in stack.headers.values()}
    found.append(
        f"expected one frame of reference but got {len(places)}: positions in them need not be comparable"
        if len(places) > 1
        else ""
    )
    return [problem for problem in dict.fromkeys(found) if problem]


def _refuse_sizes(orders: Sequence[SliceOrder], stacks: Sequence[Series]) -> None:
    sizes = {order.apply(np.empty((*stack.shape[:2], 1), np.bool_)).shape for order, stack in zip(orders, stacks)}
    if len(sizes) > 1:
        raise ScanError(
            f"{stacks[0].source.path}: expected slices of one size, oriented as in a viewer, but got "
            f"{' and '.join(f'{columns} x {rows}' for columns, rows, _ in sorted(sizes))}; split the series"
        )


def _check_finite(hu: np.ndarray, path: Path, number: int) -> None:
    bad = hu.size - int(np.isfinite(hu).sum())
    if bad:
        raise ScanError(
            f"{path}: expected finite HU but got {bad} NaN or infinite voxels in slice {number + 1}; replace them (by -1024 HU "
            "outside the field of view) or convert the scan again"
        )


def _along(order: SliceOrder, number: int, steps: int, count: int) -> int:
    return min(max(number + int(order.forward[order.axis, 1]) * steps, 0), count - 1)


class _MultiFrame:
    """A multi-frame file whose frames are read one by one."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._where = path
        self._counted = False
        try:
            if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                self._where = _inflated(path, scratch / f"inflated{len(list(scratch.glob('inflated*')))}")
            with self._where.open("rb") as stream:
                self.header = pydicom.dcmread(stream, stop_before_pixels=True)
                little, self._bits = self.header.original_encoding[1] is not False, int(self.header.BitsAllocated)
                self._pixels = find_pixels(stream, little=little, allocated=self._bits)
            self._count = int(self.header.NumberOfFrames)
        except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
            raise damaged(path, error) from error

    def pixels(self, index: int) -> Dataset:
        """A data set with the pixels of one frame and the attributes needed to decode them."""
        syntax = syntax_of(self.header)
        one = Dataset()
        for name in _PIXEL_TAGS:
            if name in self.header:
                one[name] = self.header[name]
        one.file_meta = self.header.file_meta
        one.set_original_encoding(False, self._pixels.little)
        try:
            with self._where.open("rb") as stream:
                if syntax.is_encapsulated:
                    if not self._counted:
                        stream.seek(self._pixels.start)
                        refuse_more_items(stream, self._count, syntax)
                        self._counted = True
                    stream.seek(self._pixels.start)
                    one.PixelData = encapsulate([get_frame(stream, index, number_of_frames=self._count)])
                    one["PixelData"].is_undefined_length = True
                else:
                    size = int(one.Rows) * int(one.Columns) * self._bits // 8
                    self._refuse_more(stream, size)
                    data = self._pixels.read(stream, index * size, size)
                    one.add_new("PixelData", "OB", data)  # OB keeps the order of the bytes
        except Exception as error:  # as above
            raise damaged(self.path, error) from error
        return one

    def _refuse_more(self, stream: BinaryIO, size: int) -> None:
        """Refuse pixels that are compressed although the transfer syntax says otherwise, or have more frames or rows than stated."""
        length = self._pixels.length
        if length is None:
            raise ValueError(
                f"compressed pixels where the header states {self._count} uncompressed frames of {size} bytes"
            )
        stated = self._count * size
        rest = self._pixels.read(stream, stated, min(length - stated, size)) if length > stated else b""
        refuse_more_pixels(rest, length, stated, size, size // int(self.header.Rows))


def _inflated(path: Path, target: Path) -> Path:
    """Write an inflated copy of a deflated file, so that single frames can be accessed."""
    meta = pydicom.filereader.read_file_meta_info(path)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with path.open("rb") as stream, target.open("wb") as out:
        pydicom.filereader.read_preamble(stream, force=False)
        pydicom.filereader._read_file_meta_info(stream)
        out.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(pydicom.filebase.DicomFileLike(out), meta)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while chunk := stream.read(1 << 22):
            rest = chunk
            while rest and not inflater.eof:
                out.write(inflater.decompress(rest, 1 << 22))
                rest = inflater.unconsumed_tail
        out.write(inflater.flush())
    return target
