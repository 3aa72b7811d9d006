"""Which scans lie under a path: NIfTI files, and DICOM series that are never mixed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.headers import DICOM_SUFFIXES, damaged, has_dicom_marker, passed_over, read_header
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES, ScanError, ScanSource

logger = logging.getLogger(__name__)
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
_SAME_DIRECTION = 1e-3


def find_scans(path: str | Path, *, recursive: bool = True) -> list[ScanSource]:
    """Every scan under a path, NIfTI first, each kind sorted by path.

    DICOM files are grouped by SeriesInstanceUID wherever they lie under the folder, and a series is split where its
    slices differ in orientation, rows, columns or pixel spacing. Localizers, dose reports and everything else that is
    no CT image are passed over (and counted in the log), so are hidden files and files of other kinds.

    Args:
        path: a NIfTI file, a DICOM file, or a folder of either.
        recursive: search sub-folders too.

    Raises:
        ScanError: the path is missing, holds no CT scan, or holds a damaged DICOM file.
    """
    path = Path(path)
    if not path.exists():
        raise ScanError(f"{path}: expected a file or folder but got a path that does not exist; check its spelling")
    if path.is_file():
        return [_single(path)]
    nifti: list[ScanSource] = []
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    skipped: Counter[str] = Counter()
    for file in _files(path, recursive=recursive):
        if file.name.lower().endswith(NIFTI_SUFFIXES):
            nifti.append(_nifti(file, path))
            continue
        header, reason = _ct_header(file)
        if header is None:
            skipped[reason] += 1
        else:
            series.setdefault(_uid(file, header), []).append((file, header))
    dicom = [source for uid, members in series.items() for source in _split(uid, members, path)]
    if skipped:
        logger.info("%s: passed over %s", path, _listed(skipped))
    if not nifti and not dicom:
        seen = f"only {_listed(skipped)}" if skipped else "an empty folder"
        raise ScanError(f"{path}: expected NIfTI files or a CT series in DICOM but got {seen}; name the scans' folder")
    return nifti + _unique_names(sorted(dicom, key=lambda source: (str(source.path), source.name, source.tag)))


def resolve(source: ScanSource | str | Path) -> ScanSource:
    """One scan from what names one: a source, a path, or a source's text form ``folder#tag``.

    Raises:
        ScanError: nothing there, or several scans.
    """
    if isinstance(source, ScanSource):
        return source
    text, _, tag = str(source).rpartition("#")
    if text and not Path(source).exists():
        found = [candidate for candidate in find_scans(text) if candidate.tag == tag]
        if not found:
            raise ScanError(f"{text}: expected a DICOM series with tag {tag} but got none; list them with find_scans")
        return found[0]
    found = find_scans(source)
    if len(found) > 1:
        choices = ", ".join(str(candidate) for candidate in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ScanError(f"{source}: expected one scan but got {len(found)}; name one of them: {choices}")
    return found[0]


def _files(folder: Path, *, recursive: bool) -> list[Path]:
    """Files in a fixed order; hidden ones and a Mac archive's shadow copies left out."""
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise ScanError(f"{error.filename}: expected a readable folder but got {error.strerror}; check its permissions")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX") if recursive else []
        files += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return [file for file in files if file.is_file()]


def _single(path: Path) -> ScanSource:
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return _nifti(path, path.parent)
    if path.name.lower().endswith(_PACKED):
        raise ScanError(f"{path}: expected NIfTI or DICOM but got an archive; unpack it and name the folder")
    if path.suffix.lower() in (".hdr", ".img"):
        raise ScanError(f"{path}: expected .nii or .nii.gz but got a header/image pair; convert it to one .nii file")
    header = read_header(path)
    reason = passed_over(path, header)
    if reason:
        raise ScanError(f"{path}: expected a CT image but got {reason}; name a CT slice or the folder of the series")
    return ScanSource("dicom", path, (path,), path.stem or path.name, series_uid=_uid(path, header))


def _nifti(path: Path, root: Path) -> ScanSource:
    suffix = ".nii.gz" if path.name.lower().endswith(".nii.gz") else ".nii"
    name = path.name[: -len(suffix)]
    return ScanSource("nifti", path, (path,), name, suffix, path.parent.relative_to(root).as_posix())


def _ct_header(file: Path) -> tuple[Dataset | None, str]:
    """The header if the file is a CT image, else None and what it is. What claims to be DICOM must be readable."""
    if file.name.upper() == "DICOMDIR":
        return None, "DICOMDIR"
    if not has_dicom_marker(file) and file.suffix.lower() not in DICOM_SUFFIXES:
        return None, "files of other kinds"
    header = read_header(file)
    reason = passed_over(file, header)
    return (None, reason) if reason else (header, "")


def _uid(file: Path, header: Dataset) -> str:
    uid = str(header.get("SeriesInstanceUID") or "")
    if not uid:
        raise damaged(file, "no SeriesInstanceUID")
    return uid


def _split(uid: str, members: list[tuple[Path, Dataset]], root: Path) -> list[ScanSource]:
    """The sources of one series: one for each geometry it holds."""
    groups: list[tuple[tuple[int, int], np.ndarray, list[Path]]] = []
    for file, header in members:
        shape, grid = _grid(file, header)
        for known_shape, known_grid, files in groups:
            same = known_shape == shape and known_grid.shape == grid.shape
            if same and np.allclose(known_grid, grid, rtol=0, atol=_SAME_DIRECTION):
                files.append(file)
                break
        else:
            groups.append((shape, grid, [file]))
    number = members[0][1].get("SeriesNumber")
    folder = Path(os.path.commonpath([file.parent for file, _ in members]))
    name = folder.resolve().name + (f"_series{int(number):03d}" if number is not None else "")
    relative = folder.relative_to(root).as_posix()
    sources = []
    for part, (_, _, paths) in enumerate(groups):
        own = f"{name}_part{part + 1}" if len(groups) > 1 else name
        sources.append(ScanSource("dicom", folder, tuple(sorted(paths)), own, ".nii.gz", relative, uid, part))
    return sources


def _grid(file: Path, header: Dataset) -> tuple[tuple[int, int], np.ndarray]:
    """Rows and columns, then orientation and pixel spacing as far as the file's top level states them."""
    try:
        shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
        values = [*(header.get("ImageOrientationPatient") or []), *(header.get("PixelSpacing") or [])]
        return shape, np.array(values, dtype=np.float64)
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(file, error) from error


def _unique_names(sources: list[ScanSource]) -> list[ScanSource]:
    """Add the tag to names that would meet in one output folder (series of equal or no number)."""
    count = Counter((source.relative, source.name) for source in sources)
    return [
        replace(source, name=f"{source.name}_{source.tag}") if count[source.relative, source.name] > 1 else source
        for source in sources
    ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} x {what}" for what, number in sorted(counts.items()))
