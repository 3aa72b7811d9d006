"""Recognises files that are neither DICOM nor a volume format of this package, and says what to do with them."""

from __future__ import annotations

from pathlib import Path

OTHER_KINDS = "files of other kinds"
PAIRS = "header/image pairs"
PACKED = "archives"
COMPRESSED = "compressed files"
HEADLESS = "DICOM without its file header"
DISKS = "disk images"
_VOLUMES = "volumes of other kinds"
POINTERS = "pointers to data that was not fetched"
EMPTY = "empty files"
DICOMDIR = "DICOMDIR"
ADVICE = {
    PAIRS: "convert each header/image pair to one file (.mhd to .mha, .nhdr to .nrrd, .hdr and .img to .nii)",
    PACKED: "name one .zip archive itself, or unpack archives",
    COMPRESSED: "unpack compressed files",
    HEADLESS: "export DICOM with its file header (PS3.10)",
    DISKS: "mount disk images, or unpack them",
    _VOLUMES: "convert other kinds of volumes to NIfTI",
    POINTERS: "fetch the data (git lfs pull, git annex get)",
    DICOMDIR: "copy the whole medium, not its DICOMDIR alone",
}
"""What to do with files of a kind."""
_ONE = {
    PAIRS: "a header/image pair",
    PACKED: "an archive",
    COMPRESSED: "a compressed file",
    HEADLESS: "DICOM without its file header",
    DISKS: "a disk image",
    _VOLUMES: "a volume of another kind",
    POINTERS: "a pointer to data that was not fetched",
    EMPTY: "an empty file",
}
_ADVICE_FOR_ONE = {
    PACKED: "unpack it and name the folder",
    COMPRESSED: "unpack it first",
    DISKS: "mount it, or unpack it, and name the folder",
    _VOLUMES: "convert it to NIfTI",
    POINTERS: "fetch it (git lfs pull, git annex get)",
    EMPTY: "copy or export it again",
}
ARCHIVES = (
    ".zip",
    ".tar",
    ".tgz",
    ".tbz2",
    ".txz",
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".7z",
    ".rar",
    ".cab",
    ".zipx",
)
DETACHED = {".hdr": ".nii", ".img": ".nii", ".mhd": ".mha", ".nhdr": ".nrrd"}
"""By the suffix of a separate header or image file: the suffix of the format that holds both in one file."""
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".z", ".lz4", ".lzma", ".br")
_VOXELS = (".raw", ".zraw", ".img", ".raw.gz", ".img.gz", ".hdr.gz", ".bin")
_OTHER_VOLUMES = (
    ".mnc",
    ".mnc2",
    ".mgh",
    ".mgz",
    ".vtk",
    ".vti",
    ".par",
    ".rec",
    ".h5",
    ".hdf5",
    ".gipl",
    ".head",
    ".brik",
)
_FIRST_BYTES = (
    (0, b"PK\x03\x04", PACKED), (0, b"PK\x05\x06", PACKED), (257, b"ustar", PACKED), (0, b"7z\xbc\xaf\x27\x1c", PACKED),
    (0, b"Rar!\x1a\x07", PACKED), (0, b"MSCF\0\0", PACKED),
    (0, b"\x1f\x8b\x08", COMPRESSED), (0, b"BZh", COMPRESSED), (0, b"\xfd7zXZ\0", COMPRESSED), (0, b"\x28\xb5\x2f\xfd", COMPRESSED),
    (0, b"\x04\x22\x4d\x18", COMPRESSED),
    (0x8001, b"CD001", DISKS), (0x8001, b"NSR0", DISKS), (0x8001, b"BEA01", DISKS),
    (0, b"\x89HDF\r\n", _VOLUMES), (0, b"# vtk DataFile", _VOLUMES), (0, b"CDF\x01", _VOLUMES),
    (0, b"version https://git-lfs", POINTERS), (0, b"/annex/objects/", POINTERS),
)  # fmt: skip
"""Offset, signature and kind."""
_HEAD = 0x8001 + 8


def kind_of_other(path: Path) -> str:
    """The kind of a file by its name or, if the name does not tell, by its first bytes.

    >>> kind_of_other(Path("scan.mhd")), kind_of_other(Path("scan.nii.bz2")), kind_of_other(Path("cd.iso"))
    ('header/image pairs', 'compressed files', 'disk images')
    """
    name = path.name.lower()
    if path.suffix.lower() in DETACHED or (name.endswith(_VOXELS) and _has_header(path)):
        return PAIRS
    if name.endswith(ARCHIVES):
        return PACKED
    if name.endswith(_COMPRESSED):
        return COMPRESSED
    if name.endswith((".iso", ".dmg")):
        return DISKS
    return kind_by_content(path) or (_VOLUMES if name.endswith(_OTHER_VOLUMES) else OTHER_KINDS)


def kind_by_content(path: Path) -> str:
    """The kind of a file by its first bytes, whatever it is called; empty if they are not recognised."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return EMPTY
    kind = next((kind for place, mark, kind in _FIRST_BYTES if head.startswith(mark, place)), "")
    return kind or (HEADLESS if not path.suffix and _starts_like_dicom(head) else "")


def got_instead(path: Path, kind: str) -> str:
    """The end of a message about a file of another kind: what was expected, what it is, and what to do."""
    if kind == PAIRS:
        one = DETACHED.get(path.suffix.lower(), ".nii")
        return f"expected {one} but got a header/image pair; convert it to one {one} file"
    return f"expected NIfTI or DICOM but got {_ONE[kind]}; {_ADVICE_FOR_ONE[kind]}"


def _has_header(path: Path) -> bool:
    stem = path.name.split(".")[0]
    return any(path.with_name(f"{stem}{suffix}").exists() for suffix in DETACHED)


def _starts_like_dicom(head: bytes) -> bool:
    """Whether a file starts with an attribute of group 0008, like a data set without a preamble."""
    return len(head) >= 4 and head[:2] == b"\x08\x00" and head[3] == 0 and head[2] <= 0x18
