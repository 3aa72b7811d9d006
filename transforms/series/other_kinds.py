"""Names files that are neither DICOM nor a volume this package reads, and says what to do with them."""

from __future__ import annotations

from pathlib import Path

OTHER_KINDS = "files of other kinds"
PAIRS = "header/image pairs"
PACKED = "archives"
COMPRESSED = "compressed files"
HEADLESS = "DICOM without its file header"
ADVICE = {
    PAIRS: "convert each header/image pair to one file (.mhd to .mha, .nhdr to .nrrd, .hdr and .img to .nii)",
    PACKED: "name one .zip archive itself, or unpack archives",
    COMPRESSED: "unpack compressed files",
    HEADLESS: "export DICOM with its file header (PS3.10)",
}
"""By kind."""
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
DETACHED = {".hdr": ".nii", ".img": ".nii", ".mhd": ".mha", ".nhdr": ".nrrd"}
"""Suffix of a header or image of its own: the kind that holds both in one file."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".z", ".lz4")
_VOXELS = (".raw", ".zraw", ".img", ".raw.gz", ".img.gz", ".hdr.gz", ".bin")


def kind_of_other(path: Path) -> str:
    """A file's kind by its name, and by its first bytes where a name says nothing.

    >>> kind_of_other(Path("scan.mhd")), kind_of_other(Path("scan.nii.bz2"))
    ('header/image pairs', 'compressed files')
    """
    name = path.name.lower()
    if path.suffix.lower() in DETACHED or (name.endswith(_VOXELS) and _has_header(path)):
        return PAIRS
    if name.endswith(ARCHIVES):
        return PACKED
    if name.endswith(COMPRESSIONS):
        return COMPRESSED
    return HEADLESS if not path.suffix and _starts_like_dicom(path) else OTHER_KINDS


def _has_header(path: Path) -> bool:
    stem = path.name.split(".")[0]
    return any(path.with_name(f"{stem}{suffix}").exists() for suffix in DETACHED)


def _starts_like_dicom(path: Path) -> bool:
    """Whether a file starts with an attribute of group 0008, as a data set without preamble does."""
    try:
        with path.open("rb") as stream:
            first = stream.read(4)
    except OSError:
        return False
    return len(first) == 4 and first[:2] == b"\x08\x00" and first[3] == 0 and first[2] <= 0x18
