"""Lists the files under a folder in a fixed order, and the entries that cannot be read as files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ct_cncl.transforms.series.scan import ScanError

DANGLING = "links that lead nowhere"
"""Links whose target does not exist, such as those of git-annex and DataLad before the data is fetched."""
LOOPS = "links to a folder above them"
HIDDEN = "hidden scans"
SPECIAL = "devices and pipes"
_OTHERS_WORK = frozenset({".git", ".unfinished"})
"""Hidden folders whose DICOM files are not reported: links elsewhere lead to them, or they are unfinished."""
UNREAD = (DANGLING, LOOPS, HIDDEN, SPECIAL)
"""Kinds of entries that may be scans but are not read."""


@dataclass
class Listing:
    """Content of a folder.

    Attributes:
        files: regular files, including those behind links, sorted by name within each folder.
        unread: other entries, by their kind in :data:`UNREAD`.
        broken: folders and files that cannot be read, each with the error.
    """

    files: list[Path] = field(default_factory=list)
    unread: dict[str, list[Path]] = field(default_factory=dict)
    broken: dict[Path, ScanError] = field(default_factory=dict)

    def leave_out(self, path: Path, kind: str) -> None:
        """Record an entry that is not read."""
        self.unread.setdefault(kind, []).append(path)


def list_files(folder: Path, *, recursive: bool = True) -> Listing:
    """List the files under a folder, also in folders behind links, visiting each folder once.

    Hidden files and folders, and the ``__MACOSX`` folders of archives, are left out. Hidden DICOM files are recorded in ``unread``,
    except those of git-annex, to which links lead, and unfinished results of this project.

    Args:
        folder: the folder.
        recursive: list sub-folders too.

    Raises:
        ScanError: the folder itself cannot be read.
    """
    found = Listing()
    seen = {os.path.realpath(folder)}
    waiting = [folder]
    while (
        waiting
    ):  # folders behind links come last, so that a file that can be reached without a link is listed by that path
        linked: list[Path] = []
        for start in waiting:
            _walk(start, found, seen, linked, recursive=recursive)
        waiting = []
        for link in linked:
            real = os.path.realpath(link)
            if os.path.realpath(link.parent).startswith(real.rstrip(os.sep) + os.sep) or real == os.path.realpath(
                link.parent
            ):
                found.leave_out(link, LOOPS)
            elif real not in seen:
                seen.add(real)
                waiting.append(link)
    if folder in found.broken:
        raise found.broken[folder]
    return found


def _walk(start: Path, found: Listing, seen: set[str], linked: list[Path], *, recursive: bool) -> None:
    def refuse(error: OSError) -> None:
        path = Path(error.filename)
        found.broken[path] = ScanError(
            f"{path}: expected a readable folder but got {error.strerror}; check its permissions"
        )

    for parent, folders, names in os.walk(start, onerror=refuse):
        here = Path(parent)
        for name in folders if recursive else []:
            if name.startswith(".") and name not in _OTHERS_WORK and not _is_link(here / name):
                _note_hidden(here / name, found)
        inner = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX") if recursive else []
        links = {name for name in inner if _is_link(here / name)}
        linked += [here / name for name in inner if name in links]
        folders[:] = [name for name in inner if name not in links]
        folders[:] = [name for name in folders if os.path.realpath(here / name) not in seen]
        seen.update(os.path.realpath(here / name) for name in folders)
        for name in sorted(names):
            try:
                _take(here / name, found)
            except OSError as error:  # noqa: PERF203  a folder that can be listed but not entered, or circular links
                path = here / name
                found.broken[path] = ScanError(
                    f"{path}: expected a readable file but got {error.strerror or error}; check it"
                )


def _note_hidden(folder: Path, found: Listing) -> None:
    """Record the DICOM files in a hidden folder; a folder that cannot be read is ignored."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _OTHERS_WORK)
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file() and _is_dicom(path):
                found.leave_out(path, HIDDEN)


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # longer than a path may be: listing it will raise the error
        return False


def _take(path: Path, found: Listing) -> None:
    if path.name.startswith("."):
        if path.is_file() and _is_dicom(path):
            found.leave_out(path, HIDDEN)
    elif path.is_file():
        found.files.append(path)
    elif path.is_symlink():
        found.leave_out(path, DANGLING)
    else:
        found.leave_out(path, SPECIAL)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
