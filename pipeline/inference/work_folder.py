"""The folder in which a process makes its results before they are put in place. It is removed when the process ends.

Several processes may write into one folder of results. Each has its own folder of work and holds a lock next to it as long as
it lives; what processes have left that were killed goes with the next one that comes by.
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
"""Folder among the results; it vanishes when nobody works there."""
_ALIVE = ".alive"
_own: set[Path] = set()
"""Folders that threads of this process work in: its own locks do not keep it out."""


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A folder of this process's own, on the file system of the results; nothing is left of it.

    Args:
        out: folder of the results; itself removed if it is empty in the end.

    Raises:
        OutputError: it cannot be made.
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
            with suppress(OSError):  # somebody else is at work, or there are results
                folder.rmdir()


@contextmanager
def one_at_a_time(path: Path, purpose: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file, once no other process does; where locks are not available, continue without.

    Args:
        path: of the lock.
        purpose: what it is held for.
        waiting: called with a line where it has to wait.
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
    """Remove what killed processes have left; what belongs to a living one stays, and so does all where nobody can tell."""
    with suppress(OSError):
        for path in sorted(place.iterdir()):
            holder = path.with_name(f"{path.name}{_ALIVE}") if path.is_dir() else path
            if holder.with_suffix("") in _own:
                continue
            with lock(holder) as free:  # in the end the lock file goes
                if free and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
