"""Where a process makes its results before they are put in place: a folder of its own beside them, gone when it ends.

Several processes may write into one folder of results. Each has its own folder of work and holds a lock beside it as long as
it lives; what processes have left that were killed goes with the next one that comes by.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.locks import is_locked, locked

WORK = ".unfinished"
"""Folder among the results; it vanishes when nobody works there."""
_ALIVE = ".alive"


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
    try:
        with locked(place / f"{name}{_ALIVE}", "making results"):
            own = place / name
            own.mkdir()
            try:
                yield own
            finally:
                shutil.rmtree(own, ignore_errors=True)
    finally:
        remove_leftovers(place)
        for folder in (place, out):
            with suppress(OSError):  # somebody else is at work, or there are results
                folder.rmdir()


def remove_leftovers(place: Path) -> None:
    """Remove what killed processes have left; what belongs to a living one stays."""
    with suppress(OSError):
        for path in list(place.iterdir()):
            if is_locked(path.with_name(f"{path.name}{_ALIVE}") if path.is_dir() else path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
