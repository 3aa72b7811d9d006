"""File locks, which the system releases when their process ends, however it ends."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import LONGEST, absolute, fitting

try:
    import fcntl
except ImportError:  # Windows: no locks, so two runs in one folder are not prevented
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""The pattern of the names that ``partial_name`` in ``files.py`` returns."""
_BUSY = (errno.EACCES, errno.EAGAIN)
_held: dict[tuple[int, Path], int] = {}
"""Handles by process and file: POSIX locks belong to a process, so the system would grant it a lock that it already holds."""


@contextmanager
def alone_in(folder: str | Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder of results for one run; any other run, on this machine or through a shared file system, is refused.

    The lock is a hidden file next to the folder, ``.NAME.lock``, which exists as long as the lock is held. Within one process, a
    run that is part of another may lock the same folder again. On file systems without locks, two runs are not kept apart.
    Unfinished files and locks that a killed run left in the folder are removed.

    Args:
        folder: need not exist.
        wait: wait until the folder is free instead of raising an error.

    Yields:
        Whether the folder is certainly locked; False only where locks are impossible.

    Raises:
        OutputError: another process holds the lock; the message names it.
    """
    folder = Path(os.path.normpath(absolute(folder)))
    path = lock_of(folder)
    part_of_a_run = holds(path)
    with lock(path, wait=wait) as mine:
        if mine is False:
            raise OutputError(
                f"Expected {folder} for this run alone, but {_holder(path)} is already running there. Wait until it has finished, or choose another "
                "folder."
            )
        if mine and not part_of_a_run:
            _tidy(folder)
        yield mine is True


def lock_of(folder: Path) -> Path:
    """The path of a folder's lock file: hidden, next to the folder."""
    return folder.with_name(f".{fitting(folder.name, LONGEST - 6)}.lock")


def holds(path: Path) -> bool:
    """Whether this process holds a lock file. The system cannot tell: it grants a process the same lock again."""
    return (os.getpid(), path) in _held


def _tidy(folder: Path) -> None:
    """Remove unfinished files and folders of killed runs, but nothing in hidden folders or in those that another process holds."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        for name in filter(_PARTIAL.fullmatch, names):
            with suppress(OSError):
                (here / name).unlink()
        for name in filter(_PARTIAL.fullmatch, folders):
            if (here / name).is_symlink() or not (here / name).is_dir():
                continue
            with _free(lock_of(here / _named(name))) as free:
                if free:
                    shutil.rmtree(here / name, ignore_errors=True)
        kept = []
        for name in folders:
            if not name.startswith("."):
                with _free(lock_of(here / name)) as free:
                    kept += [name] * free
        folders[:] = kept


def _named(partial: str) -> str:
    """The final name that belongs to a partial one."""
    return partial[1 : -len(".01234567.part")]


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Yield whether no other process holds a lock; a lock file that a killed process left is removed."""
    if not path.exists():
        yield True
        return
    with lock(path) as mine:
        yield mine is True


@contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Hold a lock file.

    Args:
        path: created together with its folders, and removed in the end.
        wait: wait as long as another process holds it.

    Yields:
        True if this process now holds the lock, False if another process does, None if locking is impossible (no permission, or
        no locks on this file system).
    """
    key = (os.getpid(), path)
    if fcntl is None or key in _held:
        yield None if fcntl is None else True
        return
    try:
        handle = _acquired(path, wait=wait)
    except OSError as error:
        yield False if error.errno in _BUSY else None
        return
    _held[key] = handle
    try:
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        yield True
    finally:
        del _held[key]
        with suppress(OSError):
            path.unlink()  # before it is released: a waiting process sees that the file is gone and creates a new one
        os.close(handle)


def _acquired(path: Path, *, wait: bool) -> int:
    """Create the lock file if necessary and lock it; returns its handle.

    Raises:
        OSError: with an errno in ``_BUSY`` if another process holds the lock, with another one if locking is impossible.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its folder was tidied away in between
            continue
        except PermissionError as error:  # another user's file or folder: locking is impossible, which is not "busy"
            raise OSError(errno.EROFS, str(error)) from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its former holder has removed the file in the meantime


def _holder(path: Path) -> str:
    """Who holds a lock, for a message."""
    try:
        pid, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")
