"""Locks between processes: the kernel frees them when their holder ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import LONGEST, fitting

try:
    import fcntl
except ImportError:  # Windows: processes there are not kept apart
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that knows no locks; work goes on without them, as it would have before."""
_alone: set[tuple[int, Path]] = set()
"""Process and lock of every folder that is held here: a run may ask for the folder of the run that it is part of."""


class _BusyError(OutputError):
    """Another process holds the lock."""


@contextmanager
def locked(
    path: Path, purpose: str, *, wait: bool = True, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock ``path``; other processes, and other threads, that want it wait until the block ends.

    The file says which process holds it; it is made where it is missing with its folder, and gone afterwards.

    Args:
        path: names the lock; on the file system of what it guards.
        purpose: what it is held for, for messages: "denoising scan 3".
        wait: until it is free; False refuses at once.
        waiting: called once with a line, where it has to wait.

    Raises:
        OutputError: another process holds it and ``wait`` is off; it cannot be made.
    """
    handle, _ = _acquired(path, purpose, wait=wait, waiting=waiting)
    try:
        yield
    finally:
        _release(path, handle)


@contextmanager
def alone_in(folder: str | Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder of results for one run; another run, on this machine or a shared file system, is told who holds it.

    The lock is a hidden file beside the folder, ``.NAME.lock``, which is there for as long as it is held. Within one process a
    run may hold the folder of the run that it is part of. Where there can be no lock nobody is kept apart.

    Args:
        folder: need not exist.
        wait: until it is free.

    Yields:
        Whether it is certain that no other run is there.

    Raises:
        OutputError: another process holds it; it is named.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100  links stay
    path = folder.with_name(f".{fitting(folder.name, LONGEST - 6)}.lock")
    key = (os.getpid(), path)
    if key in _alone:
        yield True
        return
    try:
        handle, certain = _acquired(path, "this run", wait=wait, waiting=None)
    except _BusyError as error:
        raise OutputError(
            f"Expected {folder} for this run alone, but {_holder(path)} is at work there. Wait until it is done, or choose another "
            "folder."
        ) from error
    except OutputError:  # a folder that cannot be written: the run itself says so, if it has to write there
        yield False
        return
    _alone.add(key)
    try:
        yield certain
    finally:
        _alone.discard(key)
        _release(path, handle)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock ``path`` now; where the file system knows no locks, an existing file is held."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        if fcntl is None:
            return True
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def _acquired(path: Path, purpose: str, *, wait: bool, waiting: Callable[[str], None] | None) -> tuple[int, bool]:
    """A handle of the file that lies there, locked, and whether the file system knows locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its folder went in between, since it was empty
            continue
        except OSError as error:
            raise OutputError(f"Expected to write {path}, but got: {error.strerror or error}.") from error
        try:
            got = _try(handle)
            if got is False:
                if not wait:
                    raise _BusyError(
                        f"Expected {path.parent} to be free for {purpose}, but another process works there. Wait for it."
                    )
                if waiting is not None:
                    waiting(f"waiting for another process: {purpose}")
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                with suppress(OSError):  # a full disk: nobody is named, that is all
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                return handle, got is not None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _release(path: Path, handle: int) -> None:
    with suppress(OSError):
        path.unlink()  # while it is held: whoever waits for this file sees that it is gone, and makes it again
    os.close(handle)


def _try(handle: int) -> bool | None:
    """Whether the lock is held now; None where there can be none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Whether the file that was locked is the one of that name: its last holder may have removed it."""
    try:
        there, own = path.stat(), os.fstat(handle)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        pid, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")
