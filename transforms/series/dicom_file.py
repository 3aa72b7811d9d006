"""Writes a DICOM file frame by frame: the header first, then each frame's pixels, uncompressed or losslessly compressed."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from ct_cncl.transforms.series.pixels import PixelLayout, values_alone
from ct_cncl.transforms.series.reencoding import reencode
from ct_cncl.transforms.series.scan import ScanError

COMPRESSIONS: dict[str, UID | None] = {"none": None, "jpeg2000": JPEG2000Lossless, "rle": RLELossless}
"""Transfer syntaxes by the names that users choose; all are lossless. None stands for no compression."""
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_LONGEST = 2**32 - 2
_PIXEL_GROUP = 0x7FE0


def output_syntax(source: Dataset, compression: str) -> UID:
    """The transfer syntax of a derived image.

    Args:
        source: the source's data set with its file meta information.
        compression: a name in :data:`COMPRESSIONS`.

    Returns:
        The syntax of the compression; for "none" implicit VR little endian if the source has it, else explicit.

    Raises:
        ScanError: the compression is unknown or its encoder is not installed.
    """
    if compression not in COMPRESSIONS:
        raise ScanError(f"{compression}: expected one of the compressions {', '.join(COMPRESSIONS)} but got another")
    chosen = COMPRESSIONS[compression]
    if chosen is None:
        implicit = source.file_meta.get("TransferSyntaxUID") == ImplicitVRLittleEndian
        return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    if not get_encoder(chosen).is_available:
        raise ScanError(
            f"{compression}: expected an installed encoder but found none; pip install 'ct-cncl[dicom]', or do not compress"
        )
    return chosen


class DicomFile:
    """A DICOM file that is being written; use it in a ``with`` block.

    Args:
        path: must not exist.
        header: data set without pixels; the transfer syntax is set in its file meta information.
        layout: layout of the words that will be written.
        syntax: transfer syntax, from :func:`output_syntax`.
        frames: number of frames that will be written.
        values_alone: clear the unused bits of the words, which may hold overlays.

    Raises:
        ScanError: the uncompressed pixels exceed the 4 GiB that DICOM allows in one file.
    """

    def __init__(
        self,
        path: Path,
        header: Dataset,
        layout: PixelLayout,
        syntax: UID,
        *,
        frames: int = 1,
        values_alone: bool = False,
    ) -> None:
        self.path, self.layout, self.syntax = path, layout, syntax
        self.header, self.values_alone = header, values_alone
        reencode(header, implicit=syntax.is_implicit_VR)
        size = frames * int(header.Rows) * int(header.Columns) * layout.allocated // 8
        if size > _LONGEST and not syntax.is_encapsulated:
            raise ScanError(
                f"{path}: expected less than 4 GiB of pixels in one file but got {size} bytes; compress them"
            )
        self._odd = size % 2
        self._stream = path.open("xb")
        try:
            self._begin(size + self._odd)
        except BaseException:
            self._stream.close()
            raise

    def _begin(self, size: int) -> None:
        self.header.file_meta.TransferSyntaxUID = self.syntax
        with disable_value_validation():  # the source's values are kept even if they break a rule
            pydicom.dcmwrite(self._stream, _part(self.header, behind=False), enforce_file_format=True)
        tag = b"\xe0\x7f\x10\x00"
        if self.syntax.is_encapsulated:
            self._stream.write(tag + b"OB\0\0\xff\xff\xff\xff" + _ITEM + b"\0\0\0\0")
        elif self.syntax.is_implicit_VR:
            self._stream.write(tag + struct.pack("<I", size))
        else:
            vr = b"OW" if self.layout.allocated > 8 else b"OB"
            self._stream.write(tag + vr + b"\0\0" + struct.pack("<I", size))

    def write(self, words: np.ndarray) -> None:
        """Add one frame.

        Args:
            words: (rows, columns), unsigned words in the layout given above.

        Raises:
            ScanError: the encoder fails; for JPEG 2000, also if a word exceeds the stored bits.
        """
        if self.values_alone:
            words = values_alone(words, self.layout)
        if not self.syntax.is_encapsulated:
            self._stream.write(words.astype(words.dtype.newbyteorder("<")).tobytes())
            return
        coded = self._encoded(words)
        self._stream.write(_ITEM + struct.pack("<I", len(coded) + len(coded) % 2) + coded + b"\0" * (len(coded) % 2))

    def _encoded(self, words: np.ndarray) -> bytes:
        layout = self.layout
        values: Any = words.view(f"<i{words.itemsize}") if layout.signed else words
        bits = layout.bits
        if self.syntax == JPEG2000Lossless and (int(values.min()) < layout.low or int(values.max()) > layout.high):
            raise ScanError(
                f"{self.path.name}: expected values of {bits} bits for JPEG 2000 but got some with more (overlays or padding); "
                "use rle or no compression"
            )
        options = {
            "rows": words.shape[0],
            "columns": words.shape[1],
            "samples_per_pixel": 1,
            "bits_allocated": layout.allocated,
            "bits_stored": bits if self.syntax == JPEG2000Lossless else layout.allocated,
            "pixel_representation": int(layout.signed),
            "photometric_interpretation": str(self.header.PhotometricInterpretation),
            "number_of_frames": 1,
        }
        try:
            return get_encoder(self.syntax).encode(values, **options)
        except Exception as error:  # encoders raise nearly every built-in exception
            raise ScanError(
                f"{self.path.name}: expected to compress the slice but the encoder failed ({error}); use another compression or none"
            ) from error

    def __enter__(self) -> DicomFile:
        return self

    def close(self) -> None:
        """Finish the file and flush it to the disk, so that it survives a power cut."""
        if self._stream.closed:
            return
        if self.syntax.is_encapsulated:
            self._stream.write(_END + b"\0\0\0\0")
        elif self._odd:
            self._stream.write(b"\0")
        self._end()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def _end(self) -> None:
        """Write the private attributes that follow the pixels."""
        behind = _part(self.header, behind=True)
        if not len(behind):
            return
        out = DicomBytesIO()
        out.is_implicit_VR, out.is_little_endian = self.syntax.is_implicit_VR, True
        with disable_value_validation():
            write_dataset(out, behind)
        self._stream.write(out.getvalue())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stream.close()


def _part(header: Dataset, *, behind: bool) -> Dataset:
    """The attributes before the pixels, with the file meta information, or those after the pixels."""
    kept = {tag: header.get_item(tag) for tag in sorted(header.keys()) if (tag.group > _PIXEL_GROUP) == behind}
    part = Dataset(kept)  # type: ignore[arg-type]
    implicit, little = header.original_encoding
    part.set_original_encoding(implicit, little, header.original_character_set)
    if not behind:
        part.file_meta = header.file_meta
    return part
