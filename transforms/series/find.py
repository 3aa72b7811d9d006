"""Finds the scans under a path: volume files and DICOM series."""

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
"""Formats that do not say what they hold: such a file is accepted if it is named itself, but not found by searching a folder."""


@dataclass(frozen=True)
class Broken:
    """A file that should be part of a scan but cannot be read."""

    path: Path
    error: ScanError
    scan: ScanSource | None = None
    """The rest of the series that the file belongs to; None if that is unknown."""


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        scans: volume files first, then DICOM series, each sorted by path; series with a broken file are left out.
        passed_over: files that are not CT images, by what they are ("LOCALIZER", "SR", "files of other kinds", ...).
        broken: files that cannot be read.
        derived: results of this project and other derived images, each with a description of what it is.
        notes: remarks about the scans, such as a series that was split.
    """

    scans: list[ScanSource]
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    derived: dict[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def instead(self) -> str:
        """What was found instead of scans, and advice; the end of an error message."""
        seen = f"only {self.others}" if self.passed_over else "an empty folder"
        advice = [text for kind, text in ADVICE.items() if kind in self.passed_over]
        return f"{seen}; " + (", ".join(advice) or "name the scans' folder")

    @property
    def unread(self) -> list[Path]:
        """Entries that may be scans but were not read, such as links whose data is missing."""
        return [path for kind in (*UNREAD, HEADLESS, POINTERS) for path in self.passed_over.get(kind, [])]

    @property
    def others(self) -> str:
        """Number and kind of the files that were passed over, with the name of the first file of each known kind."""
        counts = []
        for what, files in sorted(self.passed_over.items()):
            first = "" if what == OTHER_KINDS else f" ({files[0].name}{', ...' if len(files) > 1 else ''})"
            counts.append(f"{len(files)} x {what}{first}")
        return ", ".join(counts)


def find_scans(path: str | Path, *, recursive: bool = True) -> list[ScanSource]:
    """Find every scan under a path: volume files first, then DICOM series, each sorted by path.

    DICOM files are grouped by SeriesInstanceUID wherever they lie under the folder, and a series is split where its
    slices differ in orientation, rows, columns or pixel spacing. Localizers, dose reports and all other files that are
    not CT images are passed over (and counted in the log), as are hidden files and files of other kinds.

    Args:
        path: a NIfTI, MHA or NRRD file, a DICOM file, a DICOMDIR, or a folder of them; a TIFF or NPY file only if it is named itself.
        recursive: search sub-folders too.

    Raises:
        ScanError: the path is missing, holds no CT scan, or holds a damaged DICOM file.
    """
    return found_scans(path, recursive=recursive).scans


def found_scans(path: str | Path, *, recursive: bool = True) -> Found:
    """Like :func:`find_scans`, but returns what else was found as well.

    Raises:
        ScanError: as in :func:`find_scans`.
    """
    found = search(path, recursive=recursive)
    if found.broken:
        raise found.broken[0].error
    for note in found.notes:
        logger.warning("%s: %s", path, note)
    if found.passed_over:
        logger.log(logging.WARNING if found.unread else logging.INFO, "%s: passed over %s", path, found.others)
    if not found.scans:
        raise ScanError(f"{path}: expected volume files or a CT series in DICOM but got {found.instead}")
    return found


def search(path: str | Path, *, recursive: bool = True) -> Found:
    """Like :func:`found_scans`, but unreadable files and an empty result are not errors.

    Raises:
        ScanError: the path is missing, or is a single file that is not a scan.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise ScanError(
            f"{path}: expected a file or folder but got a link that leads nowhere; fetch or mount its target"
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
    """Find the one scan that a source, a path, or a source's text form ``folder#tag`` names.

    Raises:
        ScanError: there is no scan, or more than one.
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
    """Choose scans by name, in the order of ``scans``; all of them if no name is given.

    Args:
        scans: from :func:`find_scans`.
        wanted: series numbers, names, tags or SeriesInstanceUIDs.

    Raises:
        ScanError: no scan has the name; the message lists the names to choose from.
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
    if not has_dicom_marker(path):  # a file's content counts more than its name
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
    if kind not in (OTHER_KINDS, HEADLESS):  # for these, reading the header gives a better error
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
    """What a CT image states about itself, or None and what the file is instead; a file that claims to be DICOM must be readable."""
    if file.name.upper() == "DICOMDIR":
        return None, DICOMDIR
    if not has_dicom_marker(file) and file.suffix.lower() not in DICOM_SUFFIXES:
        return None, kind_of_other(file)
    header = read_header(file)
    reason = passed_over(file, header)
    return (None, reason) if reason else (member_of(file, header), "")


def _stated_series(file: Path) -> str:
    """The SeriesInstanceUID of a damaged file; empty if it cannot be read."""
    try:
        header = read_dataset(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID") or "")
    except Exception:  # pydicom raises nearly every built-in exception on damaged files
        return ""
