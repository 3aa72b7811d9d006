"""Temporary folders that do not outlive their process; the next process removes what a killed one left."""

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
except AttributeError:  # Windows: temporary folders are a user's own there
    _USER = 0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder in the system's temporary one, for scans and bundles that are unpacked; gone when the block ends.

    A process that is killed cannot remove it. Therefore all of a user's lie in one folder, ``ct-cncl-USER``, which only that user
    may read, and each is locked: the next process first removes those that no process holds any more. Beside results,
    ``scratch_folder`` in ``files.py`` is the better place.

    Raises:
        OSError: no place for temporary files.
    """
    base = _base()
    _tidy(base)
    own = base / uuid.uuid4().hex
    with lock(lock_of(own)):  # first the lock, then the folder: one without a lock has nobody
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _base() -> Path:
    """The user's folder; one of another user's making, or open to others, is not used."""
    base = Path(tempfile.gettempdir(), f"ct-cncl-{_USER}")
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if os.name == "posix" and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != _USER or stat.S_IMODE(found.st_mode) & 0o077
    ):
        raise PermissionError(
            f"Expected {base} to be a folder that only you can read, for scans are unpacked there, but it is not. Remove it, or "
            "name another place for temporary files with TMPDIR."
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
