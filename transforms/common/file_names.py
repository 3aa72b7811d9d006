"""File names that a file system accepts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LONGEST = 255
"""Bytes of a name on all common file systems."""
_TAG = 9


def fitting(name: str, room: int) -> str:
    """A name that is cut where it has more than ``room`` bytes, with a tag of the whole so that two stay two.

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
    """A path that no longer depends on the working directory, ``~`` being the user's home; ``~name`` of no user stays a name.

    >>> absolute("/data/~nobody-of-that-name").name, absolute("~nobody-of-that-name").name
    ('~nobody-of-that-name', '~nobody-of-that-name')
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()
