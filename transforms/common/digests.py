"""Digests of files, which show whether the files have changed since a record was written."""

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
    """Digest of one or several files.

    Attributes:
        sha256: over names and contents, in hexadecimal; an HMAC if a key was given.
        files: number of files.
        size: total size in bytes.
    """

    sha256: str
    files: int
    size: int

    def record(self) -> dict[str, Any]:
        """The digest as a dictionary for JSON."""
        return asdict(self)


def digest_of(files: Iterable[tuple[str, Path]], *, key: bytes = b"") -> Digest:
    """Digest of the files' names and contents.

    Args:
        files: pairs of the name that enters the digest and the file's path, in a reproducible order.
        key: a secret, without which nobody can check whether a file of theirs has this digest; empty for a plain SHA-256.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hmac.new(key, digestmod=hashlib.sha256) if key else hashlib.sha256()
    count = total = 0
    for name, path in files:
        own, size = hashlib.sha256(), 0
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file", str(path))  # opening a pipe would block forever
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                own.update(chunk)
                size += len(chunk)
        digest.update(f"{name!a} {size} {own.hexdigest()}\n".encode())
        count, total = count + 1, total + size
    return Digest(digest.hexdigest(), count, total)


def digest_of_result(path: Path, *, key: bytes = b"") -> Digest:
    """Digest of a file, or of all files under a folder with their paths relative to it.

    Raises:
        OSError: the path does not exist, or a file cannot be read.
    """
    if not path.is_dir():
        return digest_of([("", path)], key=key)
    return digest_of(((file.relative_to(path).as_posix(), file) for file in files_below(path)), key=key)


def files_below(folder: Path) -> Sequence[Path]:
    """All files under a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
