"""File names that a file system accepts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LONGEST = 255
"""Most bytes that a file name may have on all common file systems."""
_TAG = 9


def fitting(name: str, room: int) -> str:
    """Shorten a name to at most ``room`` bytes; a hash of the whole name at the end keeps shortened names distinct.

    >>> fitting("scan", 200)
    'scan'
    >>> fitting("x" * 240, 20)
    'xxxxxxxxxxx_718df670'
    """
    raw = os.fsencode(name)
    if len(raw) <= room:
        return name
    tag = hashlib.sha256(raw).hexdigest()[: _TAG - 1]
    return f"{raw[: room - _TAG].decode('utf-8', 'ignore')}_{tag}"


def absolute(path: str | os.PathLike[str]) -> Path:
    """Make a path absolute and expand ``~`` and ``~user``; a ``~name`` that belongs to no user is kept as it is.

    >>> absolute("/data/~nobody-of-that-name").name, absolute("~nobody-of-that-name").name
    ('~nobody-of-that-name', '~nobody-of-that-name')
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()
