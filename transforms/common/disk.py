"""Disk space, allocated before it is needed."""

from __future__ import annotations

import os
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError

_CHUNK = 1 << 22


def allocate(path: Path, size: int) -> None:
    """Extend a file to ``size`` bytes and reserve the disk space for all of them.

    Setting the length alone would leave holes in the file. A process that writes to a hole through a memory map when the disk is
    full is killed by the kernel (SIGBUS), without an error to catch.

    Args:
        path: an existing file; its content is kept.
        size: in bytes.

    Raises:
        OutputError: the disk or the user's quota has too little space left.
    """
    try:
        with path.open("r+b") as stream:
            if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                _fill(stream.fileno(), size)
    except OSError as error:
        raise OutputError(
            f"Expected {size / 2**20:.1f} MiB of free space in {path.parent} for {path.name}, but got: {error.strerror or error}. Free "
            "some space or choose another output folder."
        ) from error


def _fill(handle: int, size: int) -> None:
    """Append zeros up to ``size``."""
    left = size - os.lseek(handle, 0, os.SEEK_END)
    while left > 0:
        left -= os.write(handle, bytes(min(_CHUNK, left)))
