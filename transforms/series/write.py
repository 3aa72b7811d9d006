"""Writes NIfTI: values are rounded, never truncated, and the file gets its final name only when it is complete."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.series.scan import (
    NIFTI_SUFFIXES,
    NiftiStorage,
    Scan,
    ScanError,
    Storage,
    check_affine,
    check_finite,
)
from ct_cncl.transforms.series.values import changed

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class WriteReport:
    """Summary of a written file.

    Attributes:
        path: the file.
        dtype: type on disk, for example "int16", or ">i2" if it is big-endian.
        slope: HU = stored * slope + inter.
        inter: HU.
        clipped: number of voxels outside the range of the type, which were set to its nearest end.
        voxels: number of all voxels.
    """

    path: Path
    dtype: str
    slope: float
    inter: float
    clipped: int
    voxels: int


def write_nifti(
    hu: np.ndarray,
    path: str | Path,
    like: Scan | Storage | None = None,
    *,
    affine: np.ndarray | None = None,
    dtype: Any = None,
    overwrite: bool = False,
) -> WriteReport:
    """Write a volume in HU as NIfTI, stored like ``like``.

    With a NIfTI source, its header is kept: shape, dtype, byte order, scaling, qform and sform with their codes, units and
    extensions. With another source or none, HU are written unscaled: as float32 if the source's HU are not all whole, else as
    int16, or as int32 if int16 cannot hold them. Integers are rounded to the nearest (halves to even). The file appears under its
    name only when it is complete; nothing is left behind on failure.

    Args:
        hu: (x, y, z) HU, axes as in ``like``.
        path: .nii or .nii.gz; missing folders are created.
        like: the scan that was read, or its storage; None writes a new header and requires ``affine``.
        affine: (4, 4), voxel -> RAS mm; None takes that of ``like``.
        dtype: type on disk; None decides as above. A type other than the source's is written without scaling.
        overwrite: replace an existing file. The source itself is never replaced.

    Raises:
        ScanError: the shapes differ, the HU are not finite, the file exists, or the output cannot be written.
    """
    path = Path(path)
    storage = like.storage if isinstance(like, Scan) else like
    hu = np.asarray(hu)
    check_target(path, storage, overwrite=overwrite)
    check_volume(hu, path, storage)
    header = output_header(hu, path, storage, affine, dtype)
    slope, inter = NiftiStorage(path, header, hu.shape, np.eye(4)).slope_inter
    clipped = 0
    dtype = header.get_data_dtype()
    with new_output(path, overwrite=overwrite) as partial, _stream(partial, path) as stream:
        stream.write(header_bytes(header))
        for z in range(hu.shape[2]):
            # in float64, so that dividing by the slope does not lose a grey level
            stored, outside = changed(None, hu[..., z].astype(np.float64) - inter, dtype, slope=slope)
            clipped += outside.count
            stream.write(stored.tobytes(order="F"))
    return WriteReport(path, dtype_name(dtype), slope, inter, clipped, hu.size)


def dtype_name(dtype: np.dtype) -> str:
    """The name of a dtype, for example "int16", or ">i2" if it is big-endian."""
    return dtype.name if dtype.isnative else dtype.str


def check_target(path: Path, storage: Storage | None, *, overwrite: bool) -> None:
    """Refuse an output path that exists, is the scan itself, or does not end in .nii or .nii.gz.

    Raises:
        ScanError: the path is refused.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ScanError(f"{path}: expected an output name ending in .nii or .nii.gz; choose another name")
    if not path.exists():
        return
    if isinstance(storage, NiftiStorage) and storage.path.exists() and path.samefile(storage.path):
        raise ScanError(f"{path}: the output is the input file itself, which is never replaced; choose another name")
    if path.is_dir():
        raise ScanError(f"{path}: expected an output file but got a folder of that name; choose another name")
    if not overwrite:
        raise ScanError(f"{path}: already exists; choose another output or allow overwriting (overwrite=True)")


def check_volume(hu: np.ndarray, path: Path, storage: Storage | None) -> None:
    """Refuse a volume whose shape differs from the scan's, or whose values are not finite.

    Raises:
        ScanError: the shape differs, or a voxel is not finite.
    """
    expected = None if storage is None else (*storage.shape, 1, 1)[:3]
    if hu.ndim != 3 or hu.size == 0 or (expected is not None and hu.shape != expected):
        wanted = "(x, y, z)" if expected is None else str(expected)
        raise ScanError(
            f"{path}: expected a volume of shape {wanted} to write but got {hu.shape}; undo crops and changes of orientation"
        )
    check_finite(hu, path)


def output_header(
    hu: np.ndarray, path: Path, storage: Storage | None, affine: np.ndarray | None, dtype: Any
) -> nib.Nifti1Header:
    """The header to write; see :func:`write_nifti` for its dtype and scaling.

    Raises:
        ScanError: the geometry is unknown, or the dtype is not a real number type.
    """
    if affine is None and storage is None:
        raise ScanError(f"{path}: expected `like` or `affine` to know the geometry but got neither; pass one")
    if isinstance(storage, NiftiStorage):
        header = storage.header.copy()
        wanted = header.get_data_dtype() if dtype is None else np.dtype(dtype)
        if wanted.newbyteorder("=") != header.get_data_dtype().newbyteorder("="):
            header["scl_slope"], header["scl_inter"] = 1, 0
            header.set_data_dtype(wanted)
        if affine is not None and not np.array_equal(affine, storage.affine):
            header.set_xyzt_units("mm", header.get_xyzt_units()[1])
            _set_affine(header, check_affine(affine, path))
    else:
        whole = storage is None or storage.integral
        wanted = _fresh_dtype(hu, whole=whole) if dtype is None else np.dtype(dtype)
        header = nib.Nifti1Header()
        header.set_data_shape(hu.shape)
        header.set_data_dtype(wanted)
        header.set_xyzt_units("mm")
        header["scl_slope"], header["scl_inter"] = 1, 0
        own = affine if affine is not None else getattr(storage, "affine", None)
        _set_affine(header, check_affine(np.asarray(own), path))
    if wanted.kind not in "iuf":
        raise ScanError(f"{path}: expected an integer or floating-point dtype but got {wanted}; for example int16")
    return header


def header_bytes(header: nib.Nifti1Header) -> bytes:
    """The bytes of a header for a single file, with its extensions and zeros up to the voxels."""
    header = header.copy()
    header["magic"] = header.single_magic
    header["vox_offset"] = max(352, header.single_vox_offset + header.extensions.get_sizeondisk())
    stream = io.BytesIO()
    header.write_to(stream)
    return stream.getvalue().ljust(int(header["vox_offset"]), b"\0")


def _fresh_dtype(hu: np.ndarray, *, whole: bool) -> np.dtype:
    if not whole:
        return np.dtype(np.float32)
    fits = round(float(hu.min())) >= _INT16.min and round(float(hu.max())) <= _INT16.max
    return np.dtype(np.int16 if fits else np.int32)


def _set_affine(header: nib.Nifti1Header, affine: np.ndarray) -> None:
    """Set the affine as sform, and also as qform if a qform can state it (no shear)."""
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header["qform_code"] = 0


@contextmanager
def new_output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path, which becomes ``path`` when the block ends without an error and is removed otherwise."""
    try:
        with replacing(path) as partial:
            yield partial
            if path.exists() and not overwrite:
                raise ScanError(f"{path}: appeared while it was being written; choose another output")
    except OutputError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise ScanError(
            f"{path}: expected to write the output but got {cause.strerror or cause}; nothing was left behind; "
            "free some space or choose another output folder"
        ) from error


@contextmanager
def _stream(path: Path, target: Path) -> Iterator[IO[bytes]]:
    """Open a new file at ``path``; it is compressed if the name of ``target`` ends in .gz."""
    with path.open("xb") as raw:
        if target.name.lower().endswith(".gz"):
            # Without a name or time inside, so that the same volume gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield raw
