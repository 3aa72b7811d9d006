"""Atomic writing: a reader never sees half a file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import LONGEST, fitting


def partial_name(name: str) -> str:
    """A new hidden name for what is being made and will be called ``name``: ``.NAME.TAG.part``, cut where it is too long."""
    tag = _tag()
    return f".{fitting(name, LONGEST - len(tag) - 1)}{tag}"


def _tag() -> str:
    return f".{uuid.uuid4().hex[:8]}.part"


@contextmanager
def replacing(path: str | Path, *, temporary: Path | None = None) -> Iterator[Path]:
    """Give a temporary name next to ``path``; when the block ends well, it takes the place of ``path`` at once.

    On any error the temporary file is removed and ``path`` is unchanged.

    Args:
        path: the final name; its folder is made where it is missing.
        temporary: another temporary name on the same file system, for what must leave nothing beside ``path`` even when
            it is killed.

    Raises:
        OutputError: disk full, no permission, no such place.
    """
    path = Path(path)
    temporary = temporary or path.with_name(partial_name(path.name))
    try:
        for folder in (path.parent, temporary.parent):
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)  # noqa: PTH105  one atomic call, and the one that tests make fail
    except OSError as error:
        raise OutputError(
            f"Expected to write {path}, but got: {error.strerror or error}. Nothing was changed there; free some space or "
            "choose another output folder."
        ) from error
    finally:
        with suppress(OSError):  # no such place: the error above says so
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder in ``folder`` for files that nobody is to find there; gone when the block ends.

    Not in the system's temporary folder: there, scans would stay for ever once a process is killed. Here the next run that has
    the folder alone (``alone_in`` in ``locks.py``) removes them.

    Args:
        folder: made where it is missing, and removed again if it is empty in the end.

    Raises:
        OutputError: it cannot be made.
    """
    own = folder / partial_name("scratch")
    try:
        own.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"Expected to write to {folder}, but got: {error.strerror or error}.") from error
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        with suppress(OSError):  # there are results
            folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut; where folders cannot be synced (Windows) files are complete anyway."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
