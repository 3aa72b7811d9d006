"""Writes all results of a scan together, slice by slice, and puts them in place when all are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.common.disk import allocate
from ct_cncl.transforms.series.deidentify import Deidentifier
from ct_cncl.transforms.series.derivation import ALL_KINDS, REMOVED, Derivation, Kind, Processing
from ct_cncl.transforms.series.derived import derived_header
from ct_cncl.transforms.series.dicom_file import DicomFile, output_syntax
from ct_cncl.transforms.series.headers import damaged
from ct_cncl.transforms.series.marks import mark_of
from ct_cncl.transforms.series.pixels import PixelLayout, values_of, words_with
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES, ScanError, ScanSource
from ct_cncl.transforms.series.slices import DicomSlices, Slice, Slices, StoredFrame, VolumeSlices
from ct_cncl.transforms.series.values import RESULT, Clipped, Range, changed, stored_values
from ct_cncl.transforms.series.volume_file import VolumeFile

_MAP_LAYOUT, _MAP_DTYPE = PixelLayout(16, 16, signed=True), np.dtype("<i2")


class ResultWriter(Protocol):
    """Writes the results of one scan."""

    clipped: dict[str, Clipped]
    """Voxels that were set to the nearest storable value, by kind."""

    def write(self, number: int, source: Slice, images: Mapping[str, np.ndarray]) -> None:
        """Add one slice.

        Args:
            number: number of the slice; slices must be written in order.
            source: the slice as it was read.
            images: (columns, rows) HU by kind, oriented like ``source.hu``; where they equal it, stored values do not change. The
                kind "removed" is computed from the result and need not be given.
        """

    def finish(self) -> dict[str, Path]:
        """Complete the files and return them by kind, for :func:`put_in_place`."""


def open_results(
    slices: Slices,
    kinds: Sequence[str],
    work: Path,
    derivation: Derivation | Processing,
    *,
    compression: str = "none",
    deidentifier: Deidentifier | None = None,
    target: VolumeFile | None = None,
) -> ResultWriter:
    """Open a writer of results in the source's format, or in that of another volume file.

    Args:
        slices: the opened scan.
        kinds: names in :data:`ct_cncl.transforms.series.derivation.ALL_KINDS`.
        work: an existing, empty folder on the file system of the results.
        derivation: how the results are derived.
        compression: compression of DICOM results: "none", "jpeg2000" or "rle", all lossless.
        deidentifier: removes the patient's identity; None keeps it.
        target: the volume file to be written; None keeps the source's format.

    Raises:
        ScanError: a kind is unknown, or de-identification is asked of a format other than DICOM.
    """
    unknown = sorted(set(kinds) - set(ALL_KINDS))
    if unknown:
        raise ScanError(f"{', '.join(unknown)}: expected results from {', '.join(ALL_KINDS)} but got others")
    chosen = [ALL_KINDS[kind] for kind in kinds]
    if isinstance(slices, DicomSlices) and target is not None:
        return VolumeResults(slices, chosen, work, target=target)
    if isinstance(slices, DicomSlices):
        return DicomResults(slices, chosen, work, derivation, compression=compression, deidentifier=deidentifier)
    if deidentifier is not None:
        raise ScanError(
            f"{slices.source.path}: expected DICOM to de-identify but got {slices.source.kind}; omit --deidentify"
        )
    assert isinstance(slices, VolumeSlices)
    return VolumeResults(slices, chosen, work, target=target)


def result_name(source: ScanSource, kind: str, *, nifti: bool = False) -> str:
    """The file or folder name of a result; with ``nifti``, the name of a NIfTI file."""
    if nifti:
        return f"{source.name}_{kind}{source.suffix}"
    if source.kind == "dicom":
        return f"{source.name}_{kind}"
    suffix = source.suffix if source.path.name.lower().endswith(NIFTI_SUFFIXES) else source.path.suffix
    return f"{source.name}_{kind}{suffix}"


def put_in_place(parts: Mapping[str, Path], targets: Mapping[str, Path]) -> None:
    """Move finished results to their final paths, the main one (the first of ``targets``) last.

    A folder that a result replaces is removed only after the result is in place.

    Raises:
        OSError: a result cannot be moved; the targets of those not yet moved are unchanged.
    """
    main = next(iter(targets))
    for kind in sorted(parts, key=lambda kind: (kind == main, kind)):
        part, target = parts[kind], targets[kind]
        target.parent.mkdir(parents=True, exist_ok=True)
        old = part.with_name(f"{part.name}.old")
        if target.is_dir():
            target.replace(old)
        os.replace(part, target)  # noqa: PTH105  one atomic call, and the call that the tests replace to simulate a failure
        shutil.rmtree(old, ignore_errors=True)


class VolumeResults:
    """Writes volume files with the header, dtype and scaling of their source.

    Maps of an integer source are int16 in the step of their kind, or float32 if the step is not 1 and the source is not
    NIfTI, the only format that states a scaling. Maps of a floating-point source keep its dtype.

    Args:
        slices: the opened scan.
        kinds: the kinds of results to write.
        work: an existing, empty folder.
        target: the volume file to write, in HU without scaling; None stores the result like the source.
    """

    def __init__(self, slices: Slices, kinds: Sequence[Kind], work: Path, *, target: VolumeFile | None = None) -> None:
        self.slices, self.work = slices, work
        self._differs = False
        self.clipped = {kind.name: Clipped() for kind in kinds}
        self._like_source = target is None
        if target is None:
            assert isinstance(slices, VolumeSlices)
            target = slices.volume
        self._volumes = {kind.name: self._begin(kind, target) for kind in kinds}

    def _begin(self, kind: Kind, target: VolumeFile) -> VolumeFile:
        dtype, slope, inter = target.dtype, target.slope, target.inter
        if kind.is_map:
            (dtype, slope), inter = self._map_type(kind, target), 0.0
        volume = target.laid_out(dtype, slope, inter)
        raw = self.work / f"{kind.name}.raw"
        with raw.open("xb") as stream:
            stream.write(volume.head(dtype, slope, inter, ""))
        allocate(raw, volume.offset + int(np.prod(volume.shape, dtype=np.int64)) * dtype.itemsize)
        return volume

    def _map_type(self, kind: Kind, target: VolumeFile) -> tuple[np.dtype, float]:
        slope = target.slope if kind.step is None else kind.step
        if target.dtype.kind == "f":
            return target.dtype, target.slope if kind.step is None else 1.0
        byte_order = ">" if target.dtype.str[0] == ">" else "<"
        if slope != 1.0 and self.slices.source.kind != "nifti":  # no other format states a slope
            return np.dtype(f"{byte_order}f4"), 1.0
        return np.dtype(f"{byte_order}i2"), slope

    def write(self, number: int, source: Slice, images: Mapping[str, np.ndarray]) -> None:
        """See :class:`ResultWriter`."""
        order = self.slices.order
        place: list[slice] = [slice(None)] * 3
        at = self.slices.place(number)
        place[order.axis] = slice(at, at + 1)
        for name, volume in self._volumes.items():
            stored, clipped = self._stored(name, volume, source, images)
            self.clipped[name] += clipped
            if name == RESULT:
                self._differs |= not (self._like_source and np.array_equal(stored, source.stored))
            raw = self.work / f"{name}.raw"
            block = np.memmap(raw, volume.dtype, "r+", volume.offset, volume.shape, volume.order)
            block[tuple(place)] = stored

    def _stored(
        self, name: str, volume: VolumeFile, source: Slice, images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Clipped]:
        """Stored values of one kind, and what was clipped."""
        undo = self.slices.order.undo
        if name == REMOVED:
            assert isinstance(self.slices, VolumeSlices)
            like = self.slices.volume
            after, _ = self._stored(RESULT, like, source, images)
            removed = (source.stored.astype(np.float64) - after) * like.slope
            return changed(None, removed, volume.dtype, slope=volume.slope)
        before, hu = self._before(name, source, volume.dtype)
        change = undo((images[name].astype(np.float64) - hu)[..., None])
        return changed(before, change, volume.dtype, slope=volume.slope, inter=volume.inter)

    def _before(self, name: str, source: Slice, dtype: np.dtype) -> tuple[np.ndarray | None, np.ndarray]:
        """The stored values that a result changes, or None if all its values are new, and their HU."""
        if not ALL_KINDS[name].is_map and self._like_source:
            return source.stored, source.hu
        whole = dtype.kind == "f" or np.array_equal(source.hu, np.rint(source.hu))
        if ALL_KINDS[name].is_map or not whole:
            return None, np.zeros(())
        return self.slices.order.undo(source.hu[..., None]).astype(np.float64), source.hu

    def finish(self) -> dict[str, Path]:
        """See :class:`ResultWriter`."""
        done = {}
        for name, volume in self._volumes.items():
            raw, target = self.work / f"{name}.raw", self.work / f"{name}.done"
            if name != RESULT or self._differs:  # an unchanged result gets no mark, so that it equals its source
                _mark(raw, volume, mark_of(name))
            if volume.pack is None:
                raw.replace(target)
            else:
                volume.pack(raw, target)
                raw.unlink(missing_ok=True)
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
            done[name] = target
        return done


def _mark(raw: Path, volume: VolumeFile, mark: str) -> None:
    """Put a mark into the header of an uncompressed file."""
    head = volume.head(volume.dtype, volume.slope, volume.inter, mark)
    if len(head) == volume.offset:
        with raw.open("r+b") as stream:
            stream.write(head)
        return
    longer = raw.with_suffix(".marked")
    longer.touch()
    allocate(longer, len(head) + raw.stat().st_size - volume.offset)
    with raw.open("rb") as source, longer.open("r+b") as out:
        source.seek(volume.offset)
        out.write(head)
        shutil.copyfileobj(source, out, 1 << 22)
    longer.replace(raw)


class DicomResults:
    """Writes derived DICOM series, each into its own folder.

    Args:
        slices: the opened series.
        kinds: the kinds of results to write.
        work: an existing, empty folder.
        derivation: how the results are derived.
        compression: "none", "jpeg2000" or "rle".
        deidentifier: removes the patient's identity; None keeps it.
    """

    def __init__(
        self,
        slices: DicomSlices,
        kinds: Sequence[Kind],
        work: Path,
        derivation: Derivation | Processing,
        *,
        compression: str = "none",
        deidentifier: Deidentifier | None = None,
    ) -> None:
        if deidentifier is not None:  # the profile keeps no dates
            derivation = replace(derivation, made=None)
        self.slices, self.kinds, self.work, self.derivation = slices, kinds, work, derivation
        self.compression, self.deidentifier = compression, deidentifier
        self.clipped = {kind.name: Clipped() for kind in kinds}
        self._open: dict[str, DicomFile] = {}
        for kind in kinds:
            (work / kind.name).mkdir()

    def write(self, number: int, source: Slice, images: Mapping[str, np.ndarray]) -> None:
        """See :class:`ResultWriter`."""
        stored: StoredFrame = source.stored
        first_of_file = stored.frame.index in (None, 0)
        if first_of_file:
            self._close()
        for kind in self.kinds:
            words, clipped = self._words(stored, source, images, kind)
            self.clipped[kind.name] += clipped
            if first_of_file:
                self._open[kind.name] = self._begin(number, stored, kind, words)
            with _writable(stored.frame.path):
                self._open[kind.name].write(words)

    def _words(
        self, stored: StoredFrame, source: Slice, images: Mapping[str, np.ndarray], kind: Kind
    ) -> tuple[np.ndarray, Clipped]:
        undo = self.slices.order_of(stored.frame).undo
        if kind.is_map and kind.name != REMOVED:
            hu = undo(images[kind.name].astype(np.float64)[..., None])[..., 0].T
            values, clipped = changed(None, hu, _MAP_DTYPE, slope=kind.step or 1.0)
            return values.view("<u2"), clipped
        name = RESULT if kind.name == REMOVED else kind.name
        change = undo(np.subtract(images[name], source.hu, dtype=np.float64)[..., None])[..., 0].T
        change = np.ascontiguousarray(change)  # in the file's row order: several times faster below
        holds = Range(stored.layout.low, stored.layout.high)
        after, kept, beyond = stored_values(
            stored.values, change, holds, slope=stored.frame.slope, padded=stored.padded
        )
        if kind.name == REMOVED:
            values, clipped = changed(None, np.where(kept, 0.0, stored.values - after), _MAP_DTYPE)
            return values.view("<u2"), clipped
        words = words_with(stored.words, after.astype(np.int64), stored.layout, kept, before=stored.values)
        return words, Clipped.of(beyond, holds, slope=stored.frame.slope, inter=stored.frame.intercept)

    def _begin(self, number: int, stored: StoredFrame, kind: Kind, words: np.ndarray) -> DicomFile:
        with _writable(stored.frame.path):
            dataset = stored.dataset if self.deidentifier is None else self.deidentifier(stored.dataset)
            header = derived_header(dataset, stored.frame, self.derivation, kind, part=self.slices.source.part)
            layout = _MAP_LAYOUT if kind.is_map else stored.layout
            frames = int(header.get("NumberOfFrames") or 1)
            _state_extremes(header, words, layout, frames)
            path = self.work / kind.name / f"{number + 1:04d}.dcm"
            syntax, hidden = output_syntax(stored.dataset, self.compression), self.deidentifier is not None
            return DicomFile(path, header, layout, syntax, frames=frames, values_alone=hidden)

    def _close(self) -> None:
        for file in self._open.values():
            with _writable(self.slices.source.path):
                file.close()
        self._open = {}

    def finish(self) -> dict[str, Path]:
        """See :class:`ResultWriter`."""
        self._close()
        return {kind.name: self.work / kind.name for kind in self.kinds}


@contextmanager
def _writable(source: Path) -> Iterator[None]:
    """Report the source as damaged if its values cannot be written: reading does not decode all of them."""
    try:
        yield
    except (ScanError, OSError):
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(source, error) from error


def _state_extremes(header: Dataset, words: np.ndarray, layout: PixelLayout, frames: int) -> None:
    """Update the smallest and largest pixel value if the source states them.

    With several frames they are removed, because they are not known before the pixels are written.
    """
    names = [name for name in ("SmallestImagePixelValue", "LargestImagePixelValue") if name in header]
    if frames > 1:
        for name in names:
            del header[name]
    if frames > 1 or not names:
        return
    values, _ = values_of(words, layout)
    for name in names:
        value = values.min() if name.startswith("Smallest") else values.max()
        header.add_new(header[name].tag, "SS" if layout.signed else "US", int(value))
