"""Which scans lie under a path: volume files, and DICOM series that are never mixed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.bounded import check_size, read_dataset
from ct_cncl.transforms.series.dicomdir import is_dicomdir, referenced_files
from ct_cncl.transforms.series.headers import DICOM_SUFFIXES, damaged, has_dicom_marker, passed_over, read_header
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES, ScanError, ScanSource

logger = logging.getLogger(__name__)
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
_VOLUMES = {".nii.gz": "nifti", ".nii": "nifti", ".mha": "mha", ".nrrd": "nrrd"}
_NAMED_ONLY = {".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}
"""Kinds that say nothing of what they hold: taken where a file is named, not where a folder is searched."""
_DETACHED = {".hdr": ".nii", ".img": ".nii", ".mhd": ".mha", ".nhdr": ".nrrd"}
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Broken:
    """A file that should be part of a scan and cannot be read."""

    path: Path
    error: ScanError
    scan: ScanSource | None = None
    """The rest of the series that the file belongs to; None where nothing tells."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        scans: volume files first, each kind sorted by path; no series that has a broken file.
        passed_over: files that are no CT image, by what they are ("LOCALIZER", "SR", "files of other kinds", ...).
        broken: files that cannot be read.
    """

    scans: list[ScanSource]
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    @property
    def others(self) -> str:
        """What was passed over, counted, with the series' first file where it is DICOM."""
        counts = []
        for what, files in sorted(self.passed_over.items()):
            first = "" if what == _OTHER_KINDS else f" ({files[0].name}{', ...' if len(files) > 1 else ''})"
            counts.append(f"{len(files)} x {what}{first}")
        return ", ".join(counts)


@dataclass(frozen=True)
class _Slice:
    """What is kept of a CT header while the others are read."""

    path: Path
    uid: str
    number: int | None
    shape: tuple[int, int]
    grid: np.ndarray


_OTHER_KINDS = "files of other kinds"


def find_scans(path: str | Path, *, recursive: bool = True) -> list[ScanSource]:
    """Every scan under a path, volume files first, each kind sorted by path.

    DICOM files are grouped by SeriesInstanceUID wherever they lie under the folder, and a series is split where its
    slices differ in orientation, rows, columns or pixel spacing. Localizers, dose reports and everything else that is
    no CT image are passed over (and counted in the log), so are hidden files and files of other kinds.

    Args:
        path: a NIfTI, MHA or NRRD file, a DICOM file, a DICOMDIR, or a folder of them; TIFF and NPY where named directly.
        recursive: search sub-folders too.

    Raises:
        ScanError: the path is missing, holds no CT scan, or holds a damaged DICOM file.
    """
    found = search(path, recursive=recursive)
    if found.broken:
        raise found.broken[0].error
    if found.passed_over:
        logger.info("%s: passed over %s", path, found.others)
    if not found.scans:
        seen = f"only {found.others}" if found.passed_over else "an empty folder"
        raise ScanError(f"{path}: expected NIfTI files or a CT series in DICOM but got {seen}; name the scans' folder")
    return found.scans


def search(path: str | Path, *, recursive: bool = True) -> Found:
    """As :func:`find_scans`, but files that cannot be read, and finding nothing, are no errors.

    Raises:
        ScanError: the path is missing or is one file that is no scan.
    """
    path = Path(path)
    if not path.exists():
        raise ScanError(f"{path}: expected a file or folder but got a path that does not exist; check its spelling")
    if path.is_dir():
        files, broken = _files(path, recursive=recursive)
        found = _grouped(files, path)
        return replace(found, broken=[*found.broken, *broken])
    if not path.is_file():
        raise ScanError(f"{path}: expected a file or folder but got a pipe or a device; name a file")
    if is_dicomdir(path):
        return _grouped(referenced_files(path), path.parent)
    return Found([_single(path)])


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


def choose(scans: Sequence[ScanSource], wanted: Iterable[str]) -> list[ScanSource]:
    """The scans that are named, in their own order; all where nothing is.

    Args:
        scans: from :func:`find_scans`.
        wanted: series numbers, names, tags or SeriesInstanceUIDs.

    Raises:
        ScanError: a name that no scan has; the message lists those there are.
    """
    chosen: set[int] = set()
    for text in wanted:
        names = [{scan.name, scan.tag, scan.tag.split(".")[0], scan.series_uid, str(scan.number)} for scan in scans]
        hits = [k for k, own in enumerate(names) if text and text in own]
        if not hits:
            known = ", ".join(f"{scan.name} ({scan.tag or scan.kind})" for scan in scans[:10])
            raise ScanError(f"{text}: expected the number, name or tag of a series but got another; there are: {known}")
        chosen |= set(hits)
    return [scan for k, scan in enumerate(scans) if k in chosen] if chosen else list(scans)


def _files(folder: Path, *, recursive: bool) -> tuple[list[Path], list[Broken]]:
    """Files in a fixed order, hidden ones and a Mac archive's shadow copies left out; and folders that cannot be read.

    Pipes, devices and sockets are no files: who opens a pipe waits for its writer.

    Raises:
        ScanError: the folder itself cannot be read.
    """
    files: list[Path] = []
    broken: list[Broken] = []

    def refuse(error: OSError) -> None:
        path = Path(error.filename)
        what = ScanError(f"{path}: expected a readable folder but got {error.strerror}; check its permissions")
        if path == folder:
            raise what
        broken.append(Broken(path, what))

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX") if recursive else []
        for name in sorted(names):
            path = Path(parent, name)
            try:
                if not name.startswith(".") and path.is_file():
                    files.append(path)
            except OSError as error:  # a folder that can be listed and not entered; links in a circle
                broken.append(
                    Broken(path, ScanError(f"{path}: expected a readable file but got {error.strerror}; check it"))
                )
    return files, broken


def _single(path: Path) -> ScanSource:
    if _suffix(path, _VOLUMES | _NAMED_ONLY):
        return _volume(path, path.parent)
    if path.name.lower().endswith(_PACKED):
        raise ScanError(f"{path}: expected NIfTI or DICOM but got an archive; unpack it and name the folder")
    if path.suffix.lower() in _DETACHED:
        one = _DETACHED[path.suffix.lower()]
        raise ScanError(f"{path}: expected {one} but got a header/image pair; convert it to one {one} file")
    header = read_header(path)
    reason = passed_over(path, header)
    if reason:
        raise ScanError(f"{path}: expected a CT image but got {reason}; name a CT slice or the folder of the series")
    own = _slice(path, header)
    return ScanSource("dicom", path, (path,), path.stem or path.name, series_uid=own.uid, number=own.number)


def _suffix(path: Path, kinds: dict[str, str]) -> str:
    return next((suffix for suffix in kinds if path.name.lower().endswith(suffix)), "")


def _volume(path: Path, root: Path) -> ScanSource:
    kinds = _VOLUMES | _NAMED_ONLY
    suffix = _suffix(path, kinds)
    name, relative = path.name[: -len(suffix)], path.parent.relative_to(root).as_posix()
    result = suffix if suffix in NIFTI_SUFFIXES else ".nii.gz"
    return ScanSource(kinds[suffix], path, (path,), name, result, relative)  # type: ignore[arg-type]


def _grouped(files: Iterable[Path], root: Path) -> Found:
    volumes: list[ScanSource] = []
    series: dict[str, list[_Slice]] = {}
    skipped: dict[str, list[Path]] = {}
    broken: list[tuple[str, Broken]] = []
    for file in files:
        if _suffix(file, _VOLUMES):
            volumes.append(_volume(file, root))
            continue
        try:
            found, reason = _ct_slice(file)
        except ScanError as error:
            broken.append((_stated_series(file), Broken(file, error)))
            continue
        if found is None:
            skipped.setdefault(reason, []).append(file)
        else:
            series.setdefault(found.uid, []).append(found)
    dicom = [source for members in series.values() for source in _split(members, root)]
    dicom = _unique_names(sorted(dicom, key=lambda source: (str(source.path), source.name, source.tag)))
    bad = {uid for uid, _ in broken if uid}
    rest = {source.series_uid: source for source in dicom if source.series_uid in bad}
    scans = volumes + [source for source in dicom if source.series_uid not in bad]
    return Found(scans, skipped, [replace(item, scan=rest.get(uid)) for uid, item in broken])


def _ct_slice(file: Path) -> tuple[_Slice | None, str]:
    """What a CT image says of itself, else None and what it is. What claims to be DICOM must be readable."""
    if file.name.upper() == "DICOMDIR":
        return None, "DICOMDIR"
    if not has_dicom_marker(file) and file.suffix.lower() not in DICOM_SUFFIXES:
        return None, _OTHER_KINDS
    header = read_header(file)
    reason = passed_over(file, header)
    return (None, reason) if reason else (_slice(file, header), "")


def _slice(file: Path, header: Dataset) -> _Slice:
    uid = str(header.get("SeriesInstanceUID") or "")
    if not uid:
        raise damaged(file, "no SeriesInstanceUID")
    number = header.get("SeriesNumber")
    return _Slice(file, uid, None if number is None else int(number), *_grid(file, header))


def _stated_series(file: Path) -> str:
    """The series that a damaged file says it belongs to; empty where it does not come that far."""
    try:
        header = read_dataset(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID") or "")
    except Exception:  # pydicom raises nearly every built-in exception on damaged files
        return ""


def _split(members: list[_Slice], root: Path) -> list[ScanSource]:
    """The sources of one series: one for each geometry it holds."""
    groups: list[tuple[_Slice, list[Path]]] = []
    for member in members:
        for known, files in groups:
            same = known.shape == member.shape and known.grid.shape == member.grid.shape
            if same and np.allclose(known.grid, member.grid, rtol=0, atol=_SAME_DIRECTION):
                files.append(member.path)
                break
        else:
            groups.append((member, [member.path]))
    uid, number = members[0].uid, members[0].number
    folder = Path(os.path.commonpath([member.path.parent for member in members]))
    name = folder.resolve().name + (f"_series{number:03d}" if number is not None else "")
    relative = folder.relative_to(root).as_posix()
    sources = []
    for part, (_, paths) in enumerate(groups):
        own = f"{name}_part{part + 1}" if len(groups) > 1 else name
        sources.append(ScanSource("dicom", folder, tuple(sorted(paths)), own, ".nii.gz", relative, uid, part, number))
    return sources


def _grid(file: Path, header: Dataset) -> tuple[tuple[int, int], np.ndarray]:
    """Rows and columns, then orientation and pixel spacing as far as the file's top level states them."""
    try:
        shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
        check_size(file, *shape)
        values = [*(header.get("ImageOrientationPatient") or []), *(header.get("PixelSpacing") or [])]
        return shape, np.array(values, dtype=np.float64)
    except ScanError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(file, error) from error


def _unique_names(sources: list[ScanSource]) -> list[ScanSource]:
    """Add the tag to names that would meet in one output folder (series of equal or no number)."""
    count = Counter((source.relative, source.name) for source in sources)
    return [
        replace(source, name=f"{source.name}_{source.tag}") if count[source.relative, source.name] > 1 else source
        for source in sources
    ]
