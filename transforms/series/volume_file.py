"""Access to volume files by slice: every format is a header and one block of voxels, once compressed voxels are unpacked."""

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
"""How many times larger unpacked voxels may be: deflate compresses by at most 1032 to 1."""


@dataclass(frozen=True, eq=False)
class VolumeFile:
    """A volume file whose voxels can be accessed slice by slice.

    Attributes:
        path: the file.
        voxels: the file that holds the uncompressed voxels: ``path`` itself, or a file in the scratch folder.
        offset: offset of the first voxel in bytes.
        dtype: stored type, with its byte order.
        shape: (x, y, z).
        order: "F" if x runs fastest, "C" if z does.
        slope: HU = stored * slope + inter.
        inter: HU.
        affine: (4, 4) float64, voxel -> RAS mm.
        head: returns the bytes before the voxels of an uncompressed file like this one, for a dtype, slope, inter and mark (see
            ``marks.py``).
        pack: converts an uncompressed file of header and voxels to the source's format; None if that is uncompressed.
        problems: messages about contradictions in the header.
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
        """Return (x, y, z) stored values as a read-only memory map.

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
        """Whether every HU is a whole number."""
        return self.dtype.kind in "iu" and float(self.slope).is_integer() and float(self.inter).is_integer()

    def laid_out(self, dtype: np.dtype, slope: float, inter: float) -> VolumeFile:
        """The layout of an unmarked file like this one with another dtype and scaling; nothing is written."""
        offset = len(self.head(dtype, slope, inter, ""))
        return replace(self, dtype=dtype, slope=slope, inter=inter, offset=offset)


def open_volume(kind: str, path: Path, scratch: Path) -> VolumeFile:
    """Open a volume file; compressed voxels are unpacked into ``scratch`` without loading the whole volume.

    Args:
        kind: "nifti", "mha", "nrrd", "tiff" or "npy".
        path: the file.
        scratch: an existing folder; its content must exist as long as the volume is used.

    Raises:
        ScanError: the file is damaged, or has more than one number per voxel.
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
    if volume.voxels == path and kind != "tiff":  # the directory of a TIFF may follow the voxels
        size = math.prod(volume.shape) * volume.dtype.itemsize
        refuse_more_slices(path, behind(path, volume.offset + size, size // volume.shape[2]), size // volume.shape[2])
    return volume


def behind(path: Path, start: int, slice_bytes: int) -> bytes:
    """The bytes of a file after its voxels, as many as :func:`refuse_more_slices` needs."""
    if start >= path.stat().st_size:  # a damaged header may state any offset
        return b""
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(max(slice_bytes, _CHUNK))


def refuse_more_slices(path: Path, rest: bytes, slice_bytes: int) -> None:
    """Refuse a file with more slices than its header states, which would be lost without notice; trailing zeros are accepted.

    Args:
        path: the file, for error messages.
        rest: bytes after the voxels that the header states.
        slice_bytes: bytes of a slice.

    Raises:
        ScanError: there is at least one slice more.
    """
    if len(rest) >= slice_bytes and rest.strip(b"\0"):
        raise ScanError(
            f"{path}: expected only the slices that its header states but got more after them; correct the header, or convert the "
            "scan again"
        )


def read_volume(kind: str, path: Path, *, check_hu: bool = True) -> Scan:
    """Read an MHA, NRRD, TIFF or NPY file as a volume in HU.

    Args:
        kind: "mha", "nrrd", "tiff" or "npy".
        path: the file.
        check_hu: refuse volumes without any voxel below 0.

    Raises:
        ScanError: the file is damaged, or its values are not finite or not HU.
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
    """Refuse anything but one real number per voxel.

    Raises:
        ScanError: the dtype is structured, complex or not numeric.
    """
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise ScanError(
            f"{path}: expected one real number per voxel (HU) but got {dtype}; export the CT values instead"
        )


def no_memory(path: Path) -> ScanError:
    """The error for a scan that does not fit into memory or exceeds the memory limit of the process."""
    return ScanError(
        f"{path}: expected the scan to fit into memory but it does not; free some memory, or raise the limit of this process (ulimit -v)"
    )


def incomplete(path: Path, what: object) -> ScanError:
    """The error for a file that is truncated or cannot be parsed."""
    return ScanError(
        f"{path}: expected a complete volume file but got one that cannot be read ({what}); copy or convert it again"
    )


def header_problem(error: Exception) -> str:
    """Why a text header cannot be parsed.

    >>> header_problem(KeyError("DimSize"))
    'a missing or unknown DimSize in its header'
    """
    if isinstance(error, KeyError):
        return f"a missing or unknown {error.args[0]} in its header"
    return f"{type(error).__name__}: {error} in its header"


def unpack(stream: IO[bytes], target: Path, how: str, path: Path, *, size: int, slice_bytes: int) -> Path:
    """Inflate the rest of a stream into a file.

    Args:
        stream: positioned at the compressed bytes.
        target: the file to write.
        how: "gzip" or "zlib".
        path: the file, for error messages.
        size: expected number of bytes; anything more in a damaged or hostile file is not unpacked.
        slice_bytes: bytes of a slice.

    Raises:
        ScanError: the data are damaged, too short, or at least one slice too long; or the disk is full.
    """
    if size > MOST_DEFLATED * path.stat().st_size:  # before the disk is filled
        raise incomplete(path, "fewer voxels than its header states")
    try:
        with target.open("wb") as out:
            if how == "gzip":
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    left = size
                    while left > 0 and (chunk := unpacked.read(min(_CHUNK, left))):
                        left -= out.write(chunk)
                    rest = unpacked.read(max(slice_bytes, _CHUNK))  # up to the end, so that the checksum is verified
            else:
                left, rest = _inflate(stream, out, size, slice_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise incomplete(path, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        raise ScanError(
            f"{path}: expected to unpack it into a temporary file but got {error.strerror or error}; free some space"
        ) from error
    if left:
        raise incomplete(path, "fewer voxels than its header states")
    refuse_more_slices(path, rest, slice_bytes)
    return target


def _inflate(stream: IO[bytes], out: IO[bytes], size: int, slice_bytes: int) -> tuple[int, bytes]:
    """Inflate ``size`` bytes; returns the number of missing bytes, and what follows them, up to one slice."""
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
    """Compress a whole file with gzip, without a name or time inside, so that the same volume gives the same bytes."""
    with (
        raw.open("rb") as source,
        target.open("wb") as out,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=1, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, _CHUNK)
