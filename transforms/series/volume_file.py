"""Volume files as slices: every format is a head and one block of voxels, packed ones after unpacking them into scratch."""

from __future__ import annotations

import errno
import gzip
import math
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ct_cncl.transforms.common.temporary import temporary_folder
from ct_cncl.transforms.series.scan import GridStorage, Scan, ScanError, check_affine, check_finite, check_looks_like_hu

_CHUNK = 1 << 22
MOST_DEFLATED = 1100
"""Deflate packs no better than 1032 to 1."""


@dataclass(frozen=True, eq=False)
class VolumeFile:
    """A volume file whose voxels can be reached slice by slice.

    Attributes:
        path: the file.
        voxels: the file that holds the voxels uncompressed: ``path`` itself, or scratch.
        offset: of the first voxel, bytes.
        dtype: as stored, with its byte order.
        shape: (x, y, z).
        order: "F" where x runs fastest, "C" where z does.
        slope: HU = stored * slope + inter.
        inter: HU.
        affine: (4, 4) float64, voxel -> RAS mm.
        head: what precedes the voxels in a file like this, uncompressed, for a dtype, a slope, an inter and a mark (see ``marks.py``).
        pack: turns head and voxels, in one uncompressed file, into a file of the source's format; None where they are one.
        problems: what in the head does not fit together.
    """

    path: Path
    voxels: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, int, int]
    order: Literal["F", "C"]
    slope: float
    inter: float
    affine: np.ndarray
    head: Callable[[np.dtype, float, float, str], bytes]
    pack: Callable[[Path, Path], None] | None = None
    problems: tuple[str, ...] = ()

    def block(self) -> np.ndarray:
        """(x, y, z) stored values, mapped into memory, read-only.

        Raises:
            ScanError: the file is shorter than its header states.
        """
        try:
            return np.memmap(self.voxels, self.dtype, "r", self.offset, self.shape, self.order)
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
                raise no_memory(self.path) from error
            raise incomplete(self.path, f"too short for {self.shape} of {self.dtype}") from error

    @property
    def integral(self) -> bool:
        """Every HU is whole."""
        return self.dtype.kind in "iu" and float(self.slope).is_integer() and float(self.inter).is_integer()

    def laid_out(self, dtype: np.dtype, slope: float, inter: float) -> VolumeFile:
        """A file like this with other values; its head is not written yet, and bears no mark."""
        offset = len(self.head(dtype, slope, inter, ""))
        return replace(self, dtype=dtype, slope=slope, inter=inter, offset=offset)


def open_volume(kind: str, path: Path, scratch: Path) -> VolumeFile:
    """Open a volume file; voxels that are compressed are unpacked into ``scratch``, slice by slice or piece by piece.

    Args:
        kind: "nifti", "mha", "nrrd", "tiff" or "npy".
        path: the file.
        scratch: an existing folder; its content must live as long as the volume is used.

    Raises:
        ScanError: damaged, or more than one number a voxel.
    """
    from ct_cncl.transforms.series import arrays, meta_image, nifti, nrrd

    openers: dict[str, Any] = {
        "nifti": nifti.open_nifti,
        "mha": meta_image.open_meta_image,
        "nrrd": nrrd.open_nrrd,
        "tiff": arrays.open_tiff,
        "npy": arrays.open_npy,
    }
    volume: VolumeFile = openers[kind](path, scratch)
    check_dtype(path, volume.dtype)
    check_affine(volume.affine, path)
    volume.block()  # a file that is too short is refused before anything is computed
    if volume.voxels == path and kind != "tiff":  # its directory may stand behind the voxels
        size = math.prod(volume.shape) * volume.dtype.itemsize
        refuse_more_slices(path, behind(path, volume.offset + size, size // volume.shape[2]), size // volume.shape[2])
    return volume


def behind(path: Path, start: int, slice_bytes: int) -> bytes:
    """What stands in a file behind its voxels, as far as :func:`refuse_more_slices` needs it."""
    if start >= path.stat().st_size:  # a damaged header may state any place
        return b""
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(max(slice_bytes, _CHUNK))


def refuse_more_slices(path: Path, rest: bytes, slice_bytes: int) -> None:
    """Refuse a file with more slices than its header counts, which would be lost without a word. Zeros fill files up, and pass.

    Args:
        path: named in errors.
        rest: what stands behind the voxels that the header counts.
        slice_bytes: bytes of a slice.

    Raises:
        ScanError: at least a slice more.
    """
    if len(rest) >= slice_bytes and rest.strip(b"\0"):
        raise ScanError(
            f"{path}: expected the slices that its header counts but got more behind them; mend the header, or convert the scan "
            "again"
        )


def read_volume(kind: str, path: Path, *, check_hu: bool = True) -> Scan:
    """An MHA, NRRD, TIFF or NPY file as a volume in HU.

    Raises:
        ScanError: damaged, not finite, or not HU.
    """
    with temporary_folder() as folder:
        volume = open_volume(kind, path, folder)
        block = volume.block()
        hu = np.empty(volume.shape, dtype=np.float32, order="F")
        for z in range(volume.shape[2]):
            hu[..., z] = block[..., z].astype(np.float64) * volume.slope + volume.inter
        del block
    check_finite(hu, path)
    if check_hu:
        check_looks_like_hu(hu, path)
    return Scan(hu, volume.affine, path, GridStorage(volume.affine, volume.shape, volume.integral))


def check_dtype(path: Path, dtype: np.dtype) -> None:
    """Refuse anything but one real number a voxel.

    Raises:
        ScanError: naming the dtype.
    """
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise ScanError(f"{path}: expected one real number a voxel (HU) but got {dtype}; export the CT values instead")


def no_memory(path: Path) -> ScanError:
    """The error for a scan that does not fit into memory, or into what a limit leaves of it."""
    return ScanError(
        f"{path}: expected it to fit into memory but it does not; free some, or raise the limit of this process (ulimit -v)"
    )


def incomplete(path: Path, what: object) -> ScanError:
    """The error for a file that breaks off or cannot be understood."""
    return ScanError(
        f"{path}: expected a complete volume file but got one that cannot be read ({what}); copy or convert it again"
    )


def header_problem(error: Exception) -> str:
    """Why a text header cannot be understood.

    >>> header_problem(KeyError("DimSize"))
    'no DimSize, or one that is not known, in its header'
    """
    if isinstance(error, KeyError):
        return f"no {error.args[0]}, or one that is not known, in its header"
    return f"{type(error).__name__}: {error} in its header"


def unpack(stream: IO[bytes], target: Path, how: str, path: Path, *, size: int, slice_bytes: int) -> Path:
    """Inflate the rest of a stream into a file.

    Args:
        stream: positioned at the compressed bytes.
        target: the file to write.
        how: "gzip" or "zlib".
        path: named in errors.
        size: bytes expected; what a damaged or hostile file holds beyond them is not unpacked.
        slice_bytes: bytes of a slice.

    Raises:
        ScanError: damaged or too short, or at least a slice too long; the disk is full.
    """
    if size > MOST_DEFLATED * path.stat().st_size:  # before the disk is filled with what it states
        raise incomplete(path, "fewer voxels than its header states")
    try:
        with target.open("wb") as out:
            if how == "gzip":
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    left = size
                    while left > 0 and (chunk := unpacked.read(min(_CHUNK, left))):
                        left -= out.write(chunk)
                    rest = unpacked.read(max(slice_bytes, _CHUNK))  # up to the end, where the checksum stands
            else:
                left, rest = _inflate(stream, out, size, slice_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise incomplete(path, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        raise ScanError(
            f"{path}: expected to unpack it into scratch but got {error.strerror or error}; free some space"
        ) from error
    if left:
        raise incomplete(path, "fewer voxels than its header states")
    refuse_more_slices(path, rest, slice_bytes)
    return target


def _inflate(stream: IO[bytes], out: IO[bytes], size: int, slice_bytes: int) -> tuple[int, bytes]:
    """Bytes that are missing, and what comes behind, up to a slice."""
    inflater = zlib.decompressobj()
    left = size
    while left > 0 and not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(_CHUNK)):
        left -= out.write(inflater.decompress(chunk, min(left, _CHUNK)))
    rest = b""
    while not left and len(rest) < slice_bytes and not inflater.eof:
        chunk = inflater.unconsumed_tail or stream.read(_CHUNK)
        if not chunk:
            break
        rest += inflater.decompress(chunk, slice_bytes - len(rest))
    return left, rest


def gzipped(raw: Path, target: Path) -> None:
    """Pack a whole file; no name and no time inside, so that the same volume gives the same bytes."""
    with (
        raw.open("rb") as source,
        target.open("wb") as out,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=1, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, _CHUNK)
