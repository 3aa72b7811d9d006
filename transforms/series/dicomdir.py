"""DICOMDIR: the files that a medium's directory names."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from ct_cncl.transforms.series.bounded import read_dataset
from ct_cncl.transforms.series.headers import damaged, has_dicom_marker
from ct_cncl.transforms.series.scan import ScanError


def is_dicomdir(path: Path) -> bool:
    """Whether a file is a DICOMDIR, by its name or by what it says of itself."""
    if path.name.upper() == "DICOMDIR":
        return True
    if path.suffix or not has_dicom_marker(path):  # a DICOMDIR under another name has none
        return False
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except Exception:  # pydicom raises nearly every built-in exception on damaged files; reading says which
        return False
    return meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def referenced_files(path: Path) -> list[Path]:
    """The image files that a DICOMDIR names, in its order; names in lower case are taken too, as many systems mount media so.

    Raises:
        ScanError: damaged, a file outside of the DICOMDIR's folder, or files that are missing.
    """
    try:
        records = read_dataset(path).get("DirectoryRecordSequence") or []
        names = [
            [str(part) for part in ([stated] if isinstance(stated, str) else stated)]
            for record in records
            if str(record.get("DirectoryRecordType")) == "IMAGE" and (stated := record.get("ReferencedFileID"))
        ]
    except Exception as error:  # as above
        raise damaged(path, error) from error
    files = []
    for parts in names:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part or ":" in part for part in parts):
            raise ScanError(
                f"{path}: expected names of files below its folder but got {'/'.join(parts)}; do not trust it"
            )
        files.append(_there(path.parent, parts))
    missing = [parts for parts, file in zip(names, files) if file is None]
    if missing:
        raise ScanError(
            f"{path}: expected every file it names but {len(missing)} are missing, the first is {'/'.join(missing[0])}; copy "
            "the whole medium, or name the folder to take what is there"
        )
    return [file for file in files if file is not None]


def _there(folder: Path, parts: list[str]) -> Path | None:
    for candidate in (folder.joinpath(*parts), folder.joinpath(*(part.lower() for part in parts))):
        if candidate.is_file() and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    return None
