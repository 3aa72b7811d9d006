"""Finds the scans under a path: volume files, and DICOM series, which are never mixed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ct_cncl.transforms.common.names import same_letters
from ct_cncl.transforms.series.bounded import read_dataset
from ct_cncl.transforms.series.dicomdir import is_dicomdir, referenced_files
from ct_cncl.transforms.series.headers import (
    DICOM_SUFFIXES,
    has_dicom_marker,
    passed_over,
    read_header,
)
from ct_cncl.transforms.series.listing import UNREAD, list_files
from ct_cncl.transforms.series.origin import Origin, origin_of_file
from ct_cncl.transforms.series.other_kinds import (
    ADVICE,
    DICOMDIR,
    HEADLESS,
    OTHER_KINDS,
    POINTERS,
    got_instead,
    kind_of_other,
)
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES, ScanError, ScanSource
from ct_cncl.transforms.series.splitting import Member, divided, member_of, split, unique_names

logger = logging.getLogger(__name__)
_VOLUMES = {".nii.gz": "nifti", ".nii": "nifti", ".mha": "mha", ".nrrd": "nrrd"}
_NAMED_ONLY = {".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}
"""Kinds that say nothing of what they hold: taken where a file is named, not where a folder is searched."""


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
        derived: files that are not scans themselves: results of this project and other derived images, in words.
    """

    scans: list[ScanSource]
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    derived: dict[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def instead(self) -> str:
        """What there was in place of scans, and what to do."""
        seen = f"only {self.others}" if self.passed_over else "an empty folder"
        advice = [text for kind, text in ADVICE.items() if kind in self.passed_over]
        return f"{seen}; " + (", ".join(advice) or "name the scans' folder")

    @property
    def unread(self) -> list[Path]:
        """What may well stand for scans and was not read, as links whose data is not there."""
        return [path for kind in (*UNREAD, HEADLESS, POINTERS) for path in self.passed_over.get(kind, [])]

    @property
    def others(self) -> str:
        """What was passed over, counted, with the series' first file where it is DICOM."""
        counts = []
        for what, files in sorted(self.passed_over.items()):
            first = "" if what == OTHER_KINDS else f" ({files[0].name}{', ...' if len(files) > 1 else ''})"
            counts.append(f"{len(files)} x {what}{first}")
        return ", ".join(counts)


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
    return found_scans(path, recursive=recursive).scans


def found_scans(path: str | Path, *, recursive: bool = True) -> Found:
    """As :func:`find_scans`, with what else was found.

    Raises:
        ScanError: as :func:`find_scans`.
    """
    found = search(path, recursive=recursive)
    if found.broken:
        raise found.broken[0].error
    for note in found.notes:
        logger.warning("%s: %s", path, note)
    if found.passed_over:
        logger.log(logging.WARNING if found.unread else logging.INFO, "%s: passed over %s", path, found.others)
    if not found.scans:
        raise ScanError(f"{path}: expected NIfTI files or a CT series in DICOM but got {found.instead}")
    return found


def search(path: str | Path, *, recursive: bool = True) -> Found:
    """As :func:`find_scans`, but files that cannot be read, and finding nothing, are no errors.

    Raises:
        ScanError: the path is missing or is one file that is no scan.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise ScanError(
            f"{path}: expected a file or folder but got a link that leads nowhere; fetch or mount what it names"
        )
    if not path.exists():
        raise ScanError(f"{path}: expected a file or folder but got a path that does not exist; check its spelling")
    if path.is_dir():
        listing = list_files(path, recursive=recursive)
        found = _grouped(listing.files, path)
        broken = [Broken(path, error) for path, error in listing.broken.items()]
        return replace(found, passed_over=found.passed_over | listing.unread, broken=[*found.broken, *broken])
    if not path.is_file():
        raise ScanError(
            f"{path}: expected a file or folder but got a device or a pipe; write its content to a file first"
        )
    if is_dicomdir(path):
        return _grouped(referenced_files(path), path.parent)
    scan, origin = _single(path)
    return Found([scan], derived={path: origin.what} if origin.refused else {})


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
        names = [
            {same_letters(scan.name), scan.tag, scan.tag.split(".")[0], scan.series_uid, str(scan.number)}
            for scan in scans
        ]
        hits = [k for k, own in enumerate(names) if text and same_letters(text) in own]
        if not hits:
            known = ", ".join(f"{scan.name} ({scan.tag or scan.kind})" for scan in scans[:10])
            raise ScanError(f"{text}: expected the number, name or tag of a series but got another; there are: {known}")
        chosen |= set(hits)
    return [scan for k, scan in enumerate(scans) if k in chosen] if chosen else list(scans)


def _single(path: Path) -> tuple[ScanSource, Origin]:
    if not has_dicom_marker(path):  # what a file holds counts more than its name
        if _suffix(path, _VOLUMES | _NAMED_ONLY):
            return _volume(path, path.parent), origin_of_file(path)
        _refuse_other(path)
    header = read_header(path)
    reason = passed_over(path, header)
    if reason:
        raise ScanError(f"{path}: expected a CT image but got {reason}; name a CT slice or the folder of the series")
    own = member_of(path, header)
    name = path.stem or path.name
    return ScanSource("dicom", path, (path,), name, series_uid=own.uid, number=own.number), own.origin


def _refuse_other(path: Path) -> None:
    kind = kind_of_other(path)
    if kind not in (OTHER_KINDS, HEADLESS):  # reading the header says what is wrong with those
        raise ScanError(f"{path}: {got_instead(path, kind)}")


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
    series: dict[str, list[Member]] = {}
    skipped: dict[str, list[Path]] = {}
    broken: list[tuple[str, Broken]] = []
    for file in files:
        try:
            if _suffix(file, _VOLUMES) and not has_dicom_marker(file):
                volumes.append(_volume(file, root))
                continue
            found, reason = _ct_slice(file)
        except ScanError as error:
            broken.append((_stated_series(file), Broken(file, error)))
            continue
        if found is None:
            skipped.setdefault(reason, []).append(file)
        else:
            series.setdefault(found.uid, []).append(found)
    dicom = [source for members in series.values() for source in split(members, root)]
    dicom = unique_names(sorted(dicom, key=lambda source: (str(source.path), source.name, source.tag)))
    bad = {uid for uid, _ in broken if uid}
    rest = {source.series_uid: source for source in dicom if source.series_uid in bad}
    scans = volumes + [source for source in dicom if source.series_uid not in bad]
    origins = {volume.path: origin_of_file(volume.path) for volume in volumes}
    origins |= {member.path: member.origin for members in series.values() for member in members}
    derived = {path: origin.what for path, origin in origins.items() if origin.refused}
    notes = tuple(dict.fromkeys(note for members in series.values() if (note := divided(members))))
    return Found(scans, skipped, [replace(item, scan=rest.get(uid)) for uid, item in broken], derived, notes)


def _ct_slice(file: Path) -> tuple[Member | None, str]:
    """What a CT image says of itself, else None and what it is. What claims to be DICOM must be readable."""
    if file.name.upper() == "DICOMDIR":
        return None, DICOMDIR
    if not has_dicom_marker(file) and file.suffix.lower() not in DICOM_SUFFIXES:
        return None, kind_of_other(file)
    header = read_header(file)
    reason = passed_over(file, header)
    return (None, reason) if reason else (member_of(file, header), "")


def _stated_series(file: Path) -> str:
    """The series that a damaged file says it belongs to; empty where it does not come that far."""
    try:
        header = read_dataset(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID") or "")
    except Exception:  # pydicom raises nearly every built-in exception on damaged files
        return ""
