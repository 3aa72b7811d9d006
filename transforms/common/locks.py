"""One process at a time: locks that the system releases when their process ends, however it ends."""

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
except ImportError:  # Windows: runs are not kept apart there
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""What ``partial_name`` in ``files.py`` gives."""
_BUSY = (errno.EACCES, errno.EAGAIN)
_held: dict[tuple[int, Path], int] = {}
"""Handles by process and file: POSIX locks are a process's own, so that it may ask again for what it holds."""


@contextmanager
def alone_in(folder: str | Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder of results for one run; another run, on this machine or a shared file system, is told who holds it.

    The lock is a hidden file next to the folder, ``.NAME.lock``, which is there for as long as it is held. Within one process a
    run may hold the folder of the run that it is part of. File systems without locks keep nobody apart. What a killed run was
    writing in the folder goes, and so do its locks.

    Args:
        folder: need not exist.
        wait: until it is free.

    Yields:
        Whether that is certain: so it is unless there can be no locks.

    Raises:
        OutputError: another process holds it; it is named.
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
    """The lock file of a folder: hidden, next to it."""
    return folder.with_name(f".{fitting(folder.name, LONGEST - 6)}.lock")


def holds(path: Path) -> bool:
    """Whether this process holds a lock file: asked for it again, the system would say yes."""
    return (os.getpid(), path) in _held


def _tidy(folder: Path) -> None:
    """Remove unfinished files and folders of killed runs, but nothing in folders that another process holds, or hidden ones."""
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
    """The final name of what has a partial one."""
    return partial[1 : -len(".01234567.part")]


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Whether nobody else holds a lock; one that a killed process left goes."""
    if not path.exists():
        yield True
        return
    with lock(path) as mine:
        yield mine is True


@contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Hold a lock file.

    Args:
        path: made with its folders, and removed in the end.
        wait: for as long as another process holds it.

    Yields:
        Whether it is held now; None where nobody can hold it (no rights, no locks on this file system).
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
            path.unlink()  # before it is let go: who waits for it sees that it is gone, and makes another
        os.close(handle)


def _acquired(path: Path, *, wait: bool) -> int:
    """A handle of the file that lies there, locked.

    Raises:
        OSError: of kind ``_BUSY`` where another process has it; others where there can be no lock.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its folder was tidied away in between
            continue
        except PermissionError as error:  # another user's, or a folder that is not ours: no lock, which is no "busy"
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
        os.close(handle)  # whoever held it has removed it meanwhile


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        pid, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")
