"""Temporary folders that are removed with their process; the next process removes those of a killed one."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ct_cncl.transforms.common.locks import holds, lock, lock_of

try:
    _USER = os.getuid()
except AttributeError:  # Windows: each user has their own temporary folder
    _USER = 0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder inside the system's temporary folder for unpacked scans and bundles; it is removed when the block ends.

    A killed process cannot remove its folder. Therefore all folders of one user lie in ``ct-cncl-USER``, which only that user may
    read, and each is locked: the next process first removes those that no process holds any more. Use ``scratch_folder`` in
    ``files.py`` instead if the files are to lie next to results.

    Raises:
        OSError: the folder cannot be created, or other users can read its parent.
    """
    base = _base()
    _tidy(base)
    own = base / uuid.uuid4().hex
    with lock(lock_of(own)):  # first the lock, then the folder: a folder without a lock counts as abandoned
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _base() -> Path:
    """The user's folder; it is refused if another user created it or can read it."""
    base = Path(tempfile.gettempdir(), f"ct-cncl-{_USER}")
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if os.name == "posix" and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != _USER or stat.S_IMODE(found.st_mode) & 0o077
    ):
        raise PermissionError(
            f"Expected {base} to be a folder that only you can read, because scans are unpacked there, but it is not. Remove it, or "
            "set TMPDIR to another folder for temporary files."
        )
    return base


def _tidy(base: Path) -> None:
    for folder in base.iterdir():
        if folder.name.startswith(".") or holds(lock_of(folder)):
            continue
        if not lock_of(folder).exists():
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with lock(lock_of(folder)) as mine:
            if mine:
                shutil.rmtree(folder, ignore_errors=True)
