"""NPY and TIFF: (slices, rows, columns) in HU, without geometry. The slices are taken as axial, with voxels of 1 mm."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from ct_cncl.transforms.series.bounded import check_size
from ct_cncl.transforms.series.scan import ScanError
from ct_cncl.transforms.series.volume_file import VolumeFile, incomplete

_AS_DISPLAYED = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns run to the patient's left, rows to the back: the network sees the slices as a viewer shows them."""


def open_npy(path: Path, scratch: Path) -> VolumeFile:  # noqa: ARG001  all openers are called alike
    """Open a NumPy array of HU, (rows, columns) or (slices, rows, columns).

    Raises:
        ScanError: the file is damaged or has another number of axes.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        offset, fortran = int(array.offset), bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    except Exception as error:  # NumPy's header parser raises many kinds of errors on damaged files
        # Only the first sentence: the next one advises allow_pickle=True, which would run code from the file.
        first = re.split(r"\.\s", str(error))[0]
        raise incomplete(path, f"{type(error).__name__}: {first}") from error
    own_shape = array.shape
    shape = _shape(path, own_shape)

    def head(dtype: np.dtype, _slope: float, _inter: float, _mark: str) -> bytes:
        stream = io.BytesIO()
        description = {"descr": dtype.str, "fortran_order": fortran, "shape": own_shape}
        np.lib.format.write_array_header_1_0(stream, description)
        return stream.getvalue()

    return VolumeFile(path, path, offset, array.dtype, shape, "C" if fortran else "F", 1.0, 0.0, _AS_DISPLAYED, head)


def open_tiff(path: Path, scratch: Path) -> VolumeFile:
    """Open a greyscale TIFF with one slice per page, in HU.

    Raises:
        ScanError: the file is damaged or in colour, or no reader for TIFF is installed.
    """
    tifffile = _tifffile(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            page = series.keyframe
            dtype, own_shape, order = np.dtype(series.dtype), tuple(series.shape), tiff.byteorder
            check_size(path, int(page.imagelength), int(page.imagewidth))
            colour = page.samplesperpixel != 1 or len(tiff.series) != 1
            shown = _odd_display(page)
            offset = series.dataoffset
            voxels = path
            if offset is None and not colour:
                voxels, offset = scratch / "voxels", 0
                with voxels.open("wb") as out:
                    for each in series.pages:
                        out.write(each.asarray().astype(dtype.newbyteorder(order)).tobytes())
    except ScanError:
        raise
    except Exception as error:  # tifffile and its decoders raise many kinds of errors on damaged files
        raise incomplete(path, f"{type(error).__name__}: {error}") from error
    if colour:
        raise ScanError(
            f"{path}: expected grey slices of one size but got colour or several images; export the CT values"
        )
    if shown:
        raise ScanError(
            f"{path}: expected grey slices that are stored upright and in which larger values are brighter, but got {shown}; export the "
            "CT values"
        )
    shape = _shape(path, own_shape)

    def pack(raw: Path, target: Path) -> None:
        with raw.open("rb") as stream:
            code, _, mark = stream.read(_TAG).decode().strip().partition(" ")
        dtype = np.dtype(code)
        array = np.memmap(raw, dtype, "r", _TAG, own_shape)
        tifffile.imwrite(target, array, photometric="minisblack", byteorder=order, metadata=None, description=mark)

    def head(dtype: np.dtype, _slope: float, _inter: float, mark: str) -> bytes:
        return f"{dtype.str} {mark}".ljust(_TAG).encode()

    return VolumeFile(path, voxels, offset, dtype.newbyteorder(order), shape, "F", 1.0, 0.0, _AS_DISPLAYED, head, pack)


def _odd_display(page: Any) -> str:
    """The display setting of a TIFF that makes its values or its orientation ambiguous; empty for plain upright grey values."""
    shown = getattr(page.photometric, "name", str(page.photometric))
    if shown != "MINISBLACK":
        return f"{shown}"
    turned = page.tags.get(_ORIENTATION)
    return "" if turned is None or int(turned.value) == 1 else f"Orientation {int(turned.value)}"


_ORIENTATION = 274
"""Number of the TIFF tag."""
_TAG = 64
"""Length in bytes of the dtype and mark at the start of the raw block from which the TIFF is made."""


def _shape(path: Path, own: tuple[int, ...]) -> tuple[int, int, int]:
    if len(own) not in (2, 3) or min(own) < 1:
        raise ScanError(f"{path}: expected an array (rows, columns) or (slices, rows, columns) but got shape {own}")
    return own[-1], own[-2], own[0] if len(own) == 3 else 1


def _tifffile(path: Path) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ScanError(
            f"{path}: expected a reader for TIFF but none is installed; pip install 'ct-cncl[tiff]'"
        ) from error
    return tifffile
