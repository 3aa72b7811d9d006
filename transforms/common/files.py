"""Atomic writing: a reader never sees a half-written file."""

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
    """A new hidden name for a file or folder that will be called ``name`` once complete: ``.NAME.TAG.part``, shortened if too long."""
    tag = _tag()
    return f".{fitting(name, LONGEST - len(tag) - 1)}{tag}"


def _tag() -> str:
    return f".{uuid.uuid4().hex[:8]}.part"


@contextmanager
def replacing(path: str | Path, *, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; when the block ends without an error, that file replaces ``path`` atomically.

    On any error the temporary file is removed and ``path`` is unchanged.

    Args:
        path: the final path; its folder is created if it is missing.
        temporary: the temporary path to use instead, on the same file system, if nothing may be left next to ``path`` even
            when the process is killed.

    Raises:
        OutputError: the disk is full, or the folder cannot be created or written to.
    """
    path = Path(path)
    temporary = temporary or path.with_name(partial_name(path.name))
    try:
        for folder in (path.parent, temporary.parent):
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)  # noqa: PTH105  one atomic call, and the call that the tests replace to simulate a failure
    except OSError as error:
        raise OutputError(
            f"Expected to write {path}, but got: {error.strerror or error}. Nothing was changed there; free some space or "
            "choose another output folder."
        ) from error
    finally:
        with suppress(OSError):  # the folder does not exist: the error above says so
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside ``folder`` for intermediate files; it is removed when the block ends.

    The system's temporary folder would not do: if the process were killed, scans would stay there forever. Here, the next run
    that locks ``folder`` (``alone_in`` in ``locks.py``) removes them.

    Args:
        folder: created if it is missing, and removed again if it is empty in the end.

    Raises:
        OutputError: the folder cannot be created.
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
        with suppress(OSError):  # not empty: it holds results
            folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut. Where folders cannot be synced (Windows), the files are still complete."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
