"""NRRD (.nrrd): a text header and one block of voxels, raw or compressed with gzip."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ct_cncl.transforms.series.marks import MARK_KEY, MARK_LINE
from ct_cncl.transforms.series.scan import ScanError
from ct_cncl.transforms.series.volume_file import VolumeFile, gzipped, header_problem, incomplete, unpack

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"), "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"), "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",), "f8": ("double",),
}  # fmt: skip
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
_UNITS = {
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers"), 0.001),
}
"""Units of length in mm."""
_LONGEST_HEADER = 1 << 16
_MAGIC = re.compile(rb"NRRD000[1-5]")


def open_nrrd(path: Path, scratch: Path) -> VolumeFile:
    """Open an NRRD file of two or three spatial dimensions that has its voxels in the same file.

    Raises:
        ScanError: the file is damaged; it holds colour or vectors; its encoding is neither raw nor gzip; or its voxels are in
            another file.
    """
    lines, fields, offset = _read_header(path)
    if "data file" in fields or "datafile" in fields:
        raise ScanError(
            f"{path}: expected .nrrd but got a header whose voxels lie in another file; convert it to one file"
        )
    encoding = fields.get("encoding", "").lower()
    try:
        sizes = [int(text) for text in fields["sizes"].split()]
        if len(sizes) not in (2, 3):
            raise ScanError(f"{path}: expected one 3-D volume but got sizes {sizes}; split it into volumes")
        code = next(code for code, names in _TYPES.items() if fields["type"].lower() in names)
        order = "|" if code.endswith("1") else {"big": ">", "little": "<"}[fields["endian"].lower()]
        dtype = np.dtype(order + code)
        _refuse_other_axes(fields)
        _refuse_contradictions(fields, len(sizes))
        affine = _affine(fields, len(sizes))
        skips = _skips(fields)
    except ScanError:
        raise
    except StopIteration as error:
        raise incomplete(path, f"the unknown type {fields['type']} in its header") from error
    except KeyError as error:
        known = error.args[0] in ("sizes", "type", "endian")
        raise incomplete(path, header_problem(error if known else KeyError("endian"))) from error
    except ValueError as error:
        raise incomplete(path, header_problem(error)) from error
    if encoding not in ("raw", "gzip", "gz") or len(sizes) not in (2, 3) or min(sizes) < 1 or skips:
        raise ScanError(
            f"{path}: expected one 3-D volume, raw or compressed with gzip, but got sizes {sizes} and encoding {encoding!r}; convert it"
        )
    shape = (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1)
    voxels, pack = path, None
    if encoding != "raw":
        with path.open("rb") as stream:
            stream.seek(offset)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            voxels, offset = (
                unpack(stream, scratch / "voxels", "gzip", path, size=size, slice_bytes=size // shape[2]),
                0,
            )
        pack = _pack

    def head(wanted: np.dtype, _slope: float, _inter: float, mark: str) -> bytes:
        return _head(lines, fields["type"], wanted, mark)

    return VolumeFile(path, voxels, offset, dtype, shape, "F", 1.0, 0.0, affine, head, pack)


def _head(lines: list[str], kind: str, wanted: np.dtype, mark: str) -> bytes:
    """The text of a header with another type and a mark; an empty mark changes no mark."""
    names = _TYPES[wanted.str[1:]]
    own = {"type": kind if kind.lower() in names else names[0]}
    if wanted.itemsize > 1:
        own["endian"] = "big" if wanted.str[0] == ">" else "little"
    text = []
    for line in lines:
        key = line.partition(":")[0].strip().lower()
        if not mark or not MARK_LINE.match(line):
            text.append(f"{key}: {own.pop(key)}" if key in own and ":=" not in line else line)
    text += [f"{key}: {value}" for key, value in own.items()]
    if mark:
        text.append(
            f"{'# ' if lines[0] == 'NRRD0001' else ''}{MARK_KEY}:={mark}"
        )  # version 1 of the format has no key/value pairs, only comments
    return "\n".join([*text, "", ""]).encode()


def _pack(raw: Path, target: Path) -> None:
    """Copy the header and compress the voxels after it; ``raw`` is removed."""
    _, _, offset = _read_header(raw)
    body = raw.with_name("body")
    with raw.open("rb") as stream, body.open("wb") as out:
        head = stream.read(offset)
        while chunk := stream.read(1 << 22):
            out.write(chunk)
    raw.unlink()
    packed = body.with_name("packed")
    gzipped(body, packed)
    body.unlink()
    with target.open("wb") as out, packed.open("rb") as stream:
        out.write(head)
        while chunk := stream.read(1 << 22):
            out.write(chunk)
    packed.unlink()


def _refuse_other_axes(fields: dict[str, str]) -> None:
    """Refuse axes of colour or time, and quantized values: these are not HU along three axes of space."""
    kinds = fields.get("kinds", "").lower().split()
    others = [kind for kind in kinds if kind not in ("domain", "space", "???", "none")]
    if others:
        raise ValueError(f"axes of kind {others[0]}, not of space,")
    if any(name in fields for name in ("old min", "oldmin", "old max", "oldmax")):
        raise ValueError("quantized values (old min, old max), not HU,")


def _refuse_contradictions(fields: dict[str, str], dimensions: int) -> None:
    """Refuse fields that the format forbids and that programs interpret differently."""
    if int(fields.get("dimension", dimensions)) != dimensions:
        raise ValueError(f"dimension {fields['dimension']}, not the {dimensions} of sizes,")
    limits = [name for name in ("axis mins", "axismins", "axis maxs", "axismaxs") if name in fields]
    if limits:
        raise ValueError(f"{limits[0]}, which programs interpret differently,")
    directed = "space directions" in fields
    if directed and ("spacings" in fields or "units" in fields):
        raise ValueError("spacings or units in addition to space directions, which already state them,")
    if not directed and "space origin" in fields:
        raise ValueError("a space origin without space directions")


def _skips(fields: dict[str, str]) -> bool:
    return any(int(fields.get(name, 0)) != 0 for name in ("byte skip", "byteskip", "line skip", "lineskip"))


def _read_header(path: Path) -> tuple[list[str], dict[str, str], int]:
    """The lines of the header, its fields with names in lower case, and the offset of the voxels in bytes."""
    lines: list[str] = []
    with path.open("rb") as stream:
        while True:
            line = stream.readline(_LONGEST_HEADER)
            if not line.endswith(b"\n") or len(lines) > 1000 or (not lines and not _MAGIC.fullmatch(line.rstrip())):
                raise incomplete(path, "no NRRD header")
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text:
                break
            lines.append(text)
        offset = stream.tell()
    pairs = [line.partition(":") for line in lines[1:] if not line.startswith("#") and ":=" not in line]
    fields: dict[str, str] = {}
    for key, _, value in pairs:
        name = key.strip().lower()
        if name in fields:
            raise incomplete(path, f"{name} twice in its header")
        fields[name] = value.strip()
    return lines, fields, offset


def _affine(fields: dict[str, str], dimensions: int) -> np.ndarray:
    affine = np.eye(4)
    signs = np.array([-1.0, -1.0, 1.0])
    if "space directions" in fields:
        if fields.get("space", "").lower() not in _TO_RAS:
            raise ValueError(f"directions in {fields.get('space', 'no named space')}, not in one of LPS, RAS and LAS,")
        signs = np.array(_TO_RAS[fields["space"].lower()], dtype=np.float64)
        vectors = [_vector(text) for text in re.findall(r"\([^)]*\)", fields["space directions"])]
        if len(vectors) != dimensions:
            raise ValueError(f"{len(vectors)} space directions for {dimensions} sizes")
        affine[:3, :dimensions] = np.array(vectors).T
        if "space origin" in fields:
            affine[:3, 3] = _vector(fields["space origin"])
        affine[:3] *= _in_mm(fields, "space units", 3)[:, None]
        if dimensions == 2:
            affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / np.linalg.norm(affine[:3, 0])
    elif "spacings" in fields:
        spacings = np.array([float(text) for text in fields["spacings"].split()])
        affine[range(dimensions), range(dimensions)] = spacings * _in_mm(fields, "units", dimensions)
    affine[:3] *= signs[:, None]
    return affine


def _in_mm(fields: dict[str, str], name: str, count: int) -> np.ndarray:
    """(count,) unit of length along each axis, in mm; if none is stated it is mm, as in other programs."""
    words = [word.strip().lower() for word in re.findall(r'"([^"]*)"', fields.get(name, ""))] or ["mm"] * count
    unknown = [word for word in words if word not in _UNITS]
    if unknown or len(words) != count:
        raise ValueError(f"{name} {fields[name]}, not {count} of m, cm, mm and um,")
    return np.array([_UNITS[word] for word in words])


def _vector(text: str) -> list[float]:
    return [float(part) for part in text.strip().strip("()").split(",")]
