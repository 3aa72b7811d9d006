"""Digests of files, which show whether they have changed since a record was written."""

from __future__ import annotations

import errno
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Digest:
    """Of one file or of several.

    Attributes:
        sha256: of names and contents, hexadecimal; keyed where a key was given.
        files: how many.
        size: of all, bytes.
    """

    sha256: str
    files: int
    size: int

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def digest_of(files: Iterable[tuple[str, Path]], *, key: bytes = b"") -> Digest:
    """Digest of names and contents.

    Args:
        files: in an order that stays; names as they shall count, and where the files are.
        key: secret, so that nobody without it can tell whether the digest is that of a file he has; empty for none.

    Raises:
        OSError: a file that cannot be read.
    """
    digest = hmac.new(key, digestmod=hashlib.sha256) if key else hashlib.sha256()
    count = total = 0
    for name, path in files:
        own, size = hashlib.sha256(), 0
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file", str(path))  # opening a pipe would wait for ever
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                own.update(chunk)
                size += len(chunk)
        digest.update(f"{name!a} {size} {own.hexdigest()}\n".encode())
        count, total = count + 1, total + size
    return Digest(digest.hexdigest(), count, total)


def digest_of_result(path: Path, *, key: bytes = b"") -> Digest:
    """Digest of a file, or of all files in a folder; names below it count.

    Raises:
        OSError: nothing there, or nothing that can be read.
    """
    if not path.is_dir():
        return digest_of([("", path)], key=key)
    return digest_of(((file.relative_to(path).as_posix(), file) for file in files_below(path)), key=key)


def files_below(folder: Path) -> Sequence[Path]:
    """All files, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
