"""The folder in which a process makes its results before they are put in place. It is removed when the process ends.

Several processes may write into one results folder. Each has its own work folder, and holds a lock file next to it for as long as
it lives. The folders of killed processes are removed by the next process that finishes.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.locks import lock

WORK = ".unfinished"
"""Folder among the results. It is removed when no process works there."""
_ALIVE = ".alive"
_own: set[Path] = set()
"""Work folders of this process's threads, which its own locks do not protect from it."""


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A private folder for this process, on the same file system as the results. It is removed at the end.

    Args:
        out: folder of the results, which is removed as well if it is empty at the end.

    Raises:
        OutputError: the folder cannot be created.
    """
    place = out / WORK
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    own = place / name
    try:
        with lock(place / f"{name}{_ALIVE}"):
            try:
                own.mkdir(parents=True)
            except OSError as error:
                raise OutputError(f"Expected to write {own}, but got: {error.strerror or error}.") from error
            _own.add(own)
            try:
                yield own
            finally:
                shutil.rmtree(own, ignore_errors=True)
                _own.discard(own)
    finally:
        remove_leftovers(place)
        for folder in (place, out):
            with suppress(OSError):  # it is not empty: another process is at work, or there are results
                folder.rmdir()


@contextmanager
def one_at_a_time(path: Path, purpose: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Wait until no other process holds a lock file, then hold it. If locks are not available, continue without one.

    Args:
        path: path of the lock file.
        purpose: what the lock is for.
        waiting: called with a line of text if the process has to wait.
    """
    with lock(path) as mine:
        if mine is not False:
            yield
            return
    if waiting is not None:
        waiting(f"waiting for another process: {purpose}")
    with lock(path, wait=True):
        yield


def remove_leftovers(place: Path) -> None:
    """Remove the folders of killed processes. Those of living ones stay; without working locks, all stay."""
    with suppress(OSError):
        for path in sorted(place.iterdir()):
            holder = path.with_name(f"{path.name}{_ALIVE}") if path.is_dir() else path
            if holder.with_suffix("") in _own:
                continue
            with lock(holder) as free:  # the lock file is removed at the end of the block
                if free and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
