"""MetaImage (.mha), ITK's format: a text header and one block of voxels; world coordinates are LPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ct_cncl.transforms.series.marks import MARK_KEY
from ct_cncl.transforms.series.scan import ScanError
from ct_cncl.transforms.series.volume_file import VolumeFile, header_problem, incomplete, unpack

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 16


def open_meta_image(path: Path, scratch: Path) -> VolumeFile:
    """Open a MetaImage of two or three dimensions that has its voxels in the same file.

    Raises:
        ScanError: the file is damaged; it holds colour, vectors or ASCII voxels; or its voxels are in another file.
    """
    fields, offset = _read_header(path)
    try:
        sizes = [int(text) for text in fields["DimSize"].split()]
        if len(sizes) not in (2, 3):
            raise ScanError(f"{path}: expected one 3-D volume but got {len(sizes)} dimensions; split it into volumes")
        dtype = np.dtype(_TYPES[fields["ElementType"]])
        big = _flag(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
        dtype = dtype.newbyteorder(">" if big else "<")
        affine = _affine(fields, len(sizes))
        _refuse_other_scales(fields, len(sizes))
        channels = int(fields.get("ElementNumberOfChannels", 1))
        binary, compressed = _flag(fields, "BinaryData", absent=True), _flag(fields, "CompressedData")
    except ScanError:
        raise
    except (KeyError, ValueError) as error:
        raise incomplete(path, header_problem(error)) from error
    if (
        not binary
        or fields["ElementDataFile"] != "LOCAL"
        or len(sizes) not in (2, 3)
        or min(sizes) < 1
        or channels != 1
    ):
        raise ScanError(
            f"{path}: expected one 3-D volume of binary numbers in one file but got {len(sizes)} dimensions, "
            f"{fields.get('ElementNumberOfChannels', 1)} channels, voxels in {fields['ElementDataFile']}; convert it"
        )
    shape = (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1)
    voxels = path
    if compressed:
        with path.open("rb") as stream:
            stream.seek(offset)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            voxels, offset = (
                unpack(stream, scratch / "voxels", "zlib", path, size=size, slice_bytes=size // shape[2]),
                0,
            )

    def head(wanted: np.dtype, _slope: float, _inter: float, mark: str) -> bytes:
        name = next(name for name, code in _TYPES.items() if np.dtype(code) == wanted.newbyteorder("="))
        own = {key: value for key, value in fields.items() if key not in ("CompressedDataSize", "HeaderSize")}
        own |= {"CompressedData": "False", "ElementType": name, "BinaryDataByteOrderMSB": str(wanted.str[0] == ">")}
        own.pop("ElementByteOrderMSB", None)
        own |= {MARK_KEY: mark} if mark else {}
        own["ElementDataFile"] = own.pop("ElementDataFile")  # this field must end the header
        return "".join(f"{key} = {value}\n" for key, value in own.items()).encode()

    return VolumeFile(path, voxels, offset, dtype, shape, "F", 1.0, 0.0, affine, head)


def _flag(fields: dict[str, str], *names: str, absent: bool = False) -> bool:
    """Read a flag by its first letter, as ITK does; ``absent`` if no name is present.

    Raises:
        ValueError: a value is neither true nor false, or two names for the same flag disagree.
    """
    stated = {name: fields[name][:1].lower() for name in names if name in fields}
    for name, letter in stated.items():
        if letter not in ("t", "1", "f", "0"):
            raise ValueError(f"{name} {fields[name]}, not True or False,")
    yes = {letter in ("t", "1") for letter in stated.values()}
    if len(yes) > 1:
        raise ValueError(f"{' and '.join(stated)} that disagree")
    return yes.pop() if yes else absent


def _refuse_other_scales(fields: dict[str, str], dimensions: int) -> None:
    """Refuse fields that programs interpret differently: ITK ignores units and scales that MetaIO defines."""
    if int(fields.get("HeaderSize", 0)) > 0:
        raise ValueError(f"HeaderSize {fields['HeaderSize']}, which programs interpret differently,")
    if int(fields.get("NDims", dimensions)) != dimensions:
        raise ValueError(f"NDims {fields['NDims']}, not the {dimensions} of DimSize,")
    unit = fields.get("DistanceUnits", "mm")
    if unit not in ("mm", "?", ""):
        raise ValueError(f"DistanceUnits {unit}, not mm,")
    scale = [
        float(fields.get(f"ElementToIntensityFunction{name}", default))
        for name, default in (("Slope", 1), ("Offset", 0))
    ]
    if scale != [1, 0]:
        raise ValueError(f"values to be scaled by {scale[0]:g} and {scale[1]:g}, not HU,")


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The header fields in file order, and the offset of the voxels in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(_LONGEST_HEADER)
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator or not line.endswith(b"\n") or len(fields) > 200:
                raise incomplete(path, "no MetaImage header")
            if key.strip() in fields:
                raise incomplete(path, f"{key.strip()} twice in its header")
            fields[key.strip()] = value.strip()
        return fields, stream.tell()


def _affine(fields: dict[str, str], dimensions: int) -> np.ndarray:
    def numbers(*names: str) -> np.ndarray | None:
        stated = {name: [float(part) for part in fields[name].split()] for name in names if name in fields}
        if any(one != other for one in stated.values() for other in stated.values()):
            raise ValueError(f"{' and '.join(stated)} that disagree")
        return np.array(next(iter(stated.values()))) if stated else None

    spacing = numbers("ElementSpacing") if "ElementSpacing" in fields else numbers("ElementSize")
    directions = numbers("TransformMatrix", "Rotation", "Orientation")
    offset = numbers("Offset", "Position", "Origin")
    affine = np.eye(4)
    if directions is not None:  # each row is the direction of one axis
        affine[:dimensions, :dimensions] = directions.reshape(dimensions, dimensions).T
    if spacing is not None:
        affine[:3, :dimensions] *= spacing
    if offset is not None:
        affine[:dimensions, 3] = offset
    return _LPS_TO_RAS @ affine
