"""Locks between processes: the kernel frees them when their holder ends, however it ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: processes there are not kept apart
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that knows no locks; work goes on without them, as it would have before."""


@contextmanager
def locked(
    path: Path, purpose: str, *, wait: bool = True, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock ``path``; other processes, and other threads, that want it wait until the block ends.

    The file is empty, made where it is missing with its folder, and gone afterwards.

    Args:
        path: names the lock; on the file system of what it guards.
        purpose: what it is held for, for messages: "denoising scan 3".
        wait: until it is free; False refuses at once.
        waiting: called once with a line, where it has to wait.

    Raises:
        OutputError: another process holds it and ``wait`` is off; it cannot be made.
    """
    handle = _acquired(path, purpose, wait=wait, waiting=waiting)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever waits for this file sees that it is gone, and makes it again
        os.close(handle)


def _acquired(path: Path, purpose: str, *, wait: bool, waiting: Callable[[str], None] | None) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its folder went in between, since it was empty
            continue
        except OSError as error:
            raise OutputError(f"Expected to write {path}, but got: {error.strerror or error}.") from error
        try:
            if not _try(handle):
                if not wait:
                    raise OutputError(
                        f"Expected {path.parent} to be free for {purpose}, but another process works there. Wait for it."
                    )
                if waiting is not None:
                    waiting(f"waiting for another process: {purpose}")
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _try(handle: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
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
