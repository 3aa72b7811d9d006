"""DICOMDIR: the image files that the directory of a medium lists."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from ct_cncl.transforms.series.bounded import read_dataset
from ct_cncl.transforms.series.headers import damaged, has_dicom_marker
from ct_cncl.transforms.series.scan import ScanError


def is_dicomdir(path: Path) -> bool:
    """Whether a file is a DICOMDIR, by its name or its file meta information."""
    if path.name.upper() == "DICOMDIR":
        return True
    if path.suffix or not has_dicom_marker(path):  # a DICOMDIR under another name has no suffix either
        return False
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except Exception:  # pydicom raises nearly every built-in exception on damaged files; reading it later says so
        return False
    return meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def referenced_files(path: Path) -> list[Path]:
    """The image files that a DICOMDIR lists, in its order; lower-case names also match, since many systems mount media that way.

    Raises:
        ScanError: the DICOMDIR is damaged, or lists a file that is missing or outside its folder.
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
            f"{path}: expected every file that it lists but {len(missing)} are missing, the first is {'/'.join(missing[0])}; copy "
            "the whole medium, or name the folder to read the files that are there"
        )
    return [file for file in files if file is not None]


def _there(folder: Path, parts: list[str]) -> Path | None:
    for candidate in (folder.joinpath(*parts), folder.joinpath(*(part.lower() for part in parts))):
        if candidate.is_file() and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    return None
