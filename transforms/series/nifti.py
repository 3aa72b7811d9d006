"""Reads the header, geometry and HU of a NIfTI file (.nii or .nii.gz)."""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.series.marks import marked
from ct_cncl.transforms.series.other_kinds import COMPRESSED, EMPTY, got_instead, kind_by_content
from ct_cncl.transforms.series.scan import (
    NiftiStorage,
    Scan,
    ScanError,
    check_affine,
    check_finite,
    check_looks_like_hu,
    voxel_spacing,
)
from ct_cncl.transforms.series.volume_file import (
    MOST_DEFLATED,
    VolumeFile,
    behind,
    gzipped,
    no_memory,
    refuse_more_slices,
    unpack,
)
from ct_cncl.transforms.series.write import header_bytes

logger = logging.getLogger(__name__)
_SAME_SPACING = 0.01
"""Relative difference that is allowed between the voxel sizes in two fields."""
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def read_nifti(path: Path, *, check_hu: bool = True) -> Scan:
    """Read a NIfTI file as a volume in HU.

    Stored values are scaled by scl_slope and scl_inter in float64, then rounded to float32. The affine is the sform if
    its code is set, else the qform, else nibabel's base affine. It is converted from the header's unit of length to mm.

    Args:
        path: .nii or .nii.gz; 2-D or 3-D, any further dimensions of length 1.
        check_hu: refuse volumes without any voxel below 0.

    Raises:
        ScanError: the file is unreadable or truncated; it holds several volumes, RGB, complex or non-finite values; its affine is
            singular; or its values are not HU.
    """
    image = _open(path)
    storage = _storage(path, image)
    for problem in _contradictions(storage.header):
        logger.warning("%s: %s", path, problem)
    hu = _hu(path, image, storage)
    check_finite(hu, path)
    if check_hu:
        check_looks_like_hu(hu, path)
    return Scan(hu, storage.affine, path, storage)


def read_nifti_storage(path: Path) -> NiftiStorage:
    """Read the header and geometry of a NIfTI file, without its voxels.

    Raises:
        ScanError: as in :func:`read_nifti`, as far as the header and the file's size reveal it.
    """
    return _storage(path, _open(path))


def write_float_nifti(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume without a result's mark, such as a map or a scan for another program; equal values give equal bytes.

    Args:
        volume: (x, y, z) in HU; stored as float32.
        affine: (4, 4), voxel -> RAS mm.
        path: must end in ``.nii.gz``; an existing file is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    image = nib.Nifti1Image(np.ascontiguousarray(volume, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def open_nifti(path: Path, scratch: Path) -> VolumeFile:
    """Open a NIfTI file to read and write it slice by slice; a compressed file is unpacked into ``scratch``.

    Raises:
        ScanError: as in :func:`read_nifti`, as far as the header and the file's size reveal it.
    """
    storage = read_nifti_storage(path)
    x, y, z = (*storage.shape, 1, 1)[:3]
    dtype, offset = storage.header.get_data_dtype(), int(storage.header["vox_offset"])
    voxels, pack = path, None
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as stream:
            slice_bytes = x * y * dtype.itemsize
            voxels = unpack(
                stream, scratch / "voxels", "gzip", path, size=offset + z * slice_bytes, slice_bytes=slice_bytes
            )
        pack = gzipped

    def head(wanted: np.dtype, slope: float, inter: float, mark: str) -> bytes:
        header = marked(storage.header, mark)
        if (wanted, slope, inter) != (dtype, *storage.slope_inter):
            header.set_data_dtype(wanted)
            header["scl_slope"], header["scl_inter"] = slope, inter
        return header_bytes(header)

    slope, inter = storage.slope_inter
    return VolumeFile(
        path,
        voxels,
        offset,
        dtype,
        (x, y, z),
        "F",
        slope,
        inter,
        storage.affine,
        head,
        pack,
        _contradictions(storage.header),
    )


def _contradictions(header: Any) -> tuple[str, ...]:
    """Messages about a qform or pixdim that contradicts the sform in directions or voxel size: programs differ in which they use."""
    if int(header["sform_code"]) <= 0:
        return ()
    affine, stated = header.get_sform(), np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    spacing = voxel_spacing(affine)
    usable = np.isfinite(stated).all() and (stated > 0).all()
    if usable and not np.allclose(stated, spacing, rtol=_SAME_SPACING, atol=0):
        sizes = [" x ".join(f"{length:.4g}" for length in lengths) for lengths in (spacing, stated)]
        return (
            f"expected sform and pixdim to state one voxel size but got {sizes[0]} and {sizes[1]}: the sform counts here, not in all programs",
        )
    if int(header["qform_code"]) <= 0:
        return ()
    try:
        other = header.get_qform()
    except Exception:  # nibabel raises several kinds of errors on invalid quaternions
        return ("expected a qform that states directions but got one that does not: the sform counts",)
    ways = ["".join(nib.aff2axcodes(own)) for own in (affine, other)]
    if ways[0] == ways[1]:
        return ()
    return (
        f"expected qform and sform to run one way but got {ways[1]} and {ways[0]}: the sform counts here, not in all programs",
    )


def _open(path: Path) -> Any:
    """The nibabel image of a file, whose voxels are not read yet."""
    noisy = logging.getLogger("nibabel.global")
    disabled = noisy.disabled
    try:
        noisy.disabled = True  # nibabel prints header repairs to stderr
        image = nib.load(path)
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # nibabel and its decompressors raise many kinds of errors on damaged files
        raise _unreadable(path, error) from error
    finally:
        noisy.disabled = disabled
    if not isinstance(image, nib.Nifti1Image):
        raise ScanError(
            f"{path}: expected a NIfTI-1 or NIfTI-2 volume but got {type(image).__name__}; convert it first"
        )
    return image


def _unreadable(path: Path, error: BaseException) -> ScanError:
    kind = kind_by_content(path)
    if kind not in ("", EMPTY) and not (kind == COMPRESSED and path.name.lower().endswith(".gz")):
        return ScanError(f"{path}: {got_instead(path, kind)}")
    return ScanError(
        f"{path}: expected a complete NIfTI file but got one that cannot be read ({type(error).__name__}: {error}); "
        "copy or convert it again"
    )


def _storage(path: Path, image: Any) -> NiftiStorage:
    """Check the header and keep it exactly as on disk (nibabel's own copy has lost the scaling)."""
    shape = tuple(int(length) for length in image.shape)
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "RGB" if dtype.fields is not None else str(dtype)
        raise ScanError(f"{path}: expected one real number per voxel (HU) but got {kind}; export the CT values instead")
    if not shape or min(shape) < 1:
        raise ScanError(
            f"{path}: expected dimensions of at least 1 but got {shape}; the header is damaged, convert the scan again"
        )
    if len(shape) < 2 or any(length != 1 for length in shape[3:]):
        raise ScanError(
            f"{path}: expected one 3-D volume but got shape {shape}; split it into volumes "
            "(fslsplit, nibabel.four_to_three)"
        )
    # A damaged header may state any size: refuse what the file cannot hold before memory is allocated.
    packing = MOST_DEFLATED if path.name.lower().endswith(".gz") else 1
    if math.prod(shape) * dtype.itemsize > path.stat().st_size * packing:
        raise _unreadable(path, EOFError(f"too short for shape {shape} of {dtype.name}"))
    try:
        with nib.openers.ImageOpener(str(path)) as stream:
            header = type(image.header).from_fileobj(stream, check=False)
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # nibabel and its decompressors raise many kinds of errors on damaged files
        raise _unreadable(path, error) from error
    size = math.prod(shape) * dtype.itemsize
    offset = int(header["vox_offset"])
    if offset < header.single_vox_offset:
        raise ScanError(
            f"{path}: expected voxels after the header, from byte {header.single_vox_offset} on, but got vox_offset {offset}, which "
            "programs interpret differently; correct the header, or convert the scan again"
        )
    slice_bytes = size // (*shape, 1)[2]
    refuse_more_slices(path, _behind(path, offset + size, slice_bytes), slice_bytes)
    affine = np.diag([*[_unit_in_mm(path, header)] * 3, 1.0]) @ image.affine
    storage = NiftiStorage(path, header, shape, check_affine(affine, path))
    if not np.isfinite(storage.slope_inter[1]):
        raise ScanError(f"{path}: expected a finite scl_inter but got {storage.slope_inter[1]}; correct the header")
    return storage


def _behind(path: Path, start: int, slice_bytes: int) -> bytes:
    """Bytes after the voxels, at most one slice.

    A compressed file is unpacked for this only if its last four bytes, the unpacked size modulo 4 GiB, indicate a further slice.
    """
    if not path.name.lower().endswith(".gz"):
        return behind(path, start, slice_bytes)
    with path.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        more = (int.from_bytes(stream.read(4), "little") - start) % (1 << 32)
    if not slice_bytes <= more < 1 << 31:  # a gzip file of several members states the size of the last one only
        return b""
    try:
        with gzip.open(path) as unpacked:
            unpacked.seek(start)
            return unpacked.read(slice_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _unit_in_mm(path: Path, header: Any) -> float:
    """The header's unit of length in mm; if none is stated it is mm, as in all other programs."""
    code = int(header["xyzt_units"]) & 0x07
    if code not in _UNITS:
        raise ScanError(
            f"{path}: expected metres, millimetres or microns (xyzt_units 1, 2 or 3) but got the unknown unit {code}; correct the header"
        )
    return _UNITS[code]


def _hu(path: Path, image: Any, storage: NiftiStorage) -> np.ndarray:
    """(x, y, z) float32 HU, scaled slice by slice so that only one float32 volume is held in memory."""
    shape = (*storage.shape, 1, 1)[:3]
    slope, inter = storage.slope_inter
    hu = np.empty(shape, dtype=np.float32, order="F")
    try:
        stored = image.dataobj.get_unscaled().reshape(shape, order="F")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported later, as not finite
            for z in range(shape[2]):
                hu[..., z] = stored[..., z].astype(np.float64) * slope + inter
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # nibabel and its decompressors raise many kinds of errors on damaged files
        raise _unreadable(path, error) from error
    return hu
