"""The spool: objects and results on disk. A file gets its final name only once all of it has reached the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydicom.filereader import read_file_meta_info, read_preamble

from ct_cncl.pipeline.node.errors import NodeError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 2**20


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full, including errors of SQLite and wrapped ones."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in _FULL or "disk is full" in str(seen) or "No space left" in str(seen):
            return True
        seen = seen.__cause__
    return False


class Spool:
    """The folders of a node.

    Args:
        folder: the folder that holds them all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming, self.objects = folder / "incoming", folder / "objects"
        self.others, self.work, self.results = folder / "others", folder / "work", folder / "results"

    def prepare(self) -> None:
        """Create the folders, readable by this user only."""
        for path in (self.folder, self.incoming, self.objects, self.others, self.work, self.results):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lock(self) -> IO[str]:
        """Lock the spool for this node for as long as the returned file is open.

        Raises:
            NodeError: another process holds the lock.
        """
        self.prepare()
        stream = (self.folder / "node.lock").open("a")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise NodeError(
                f"Expected the spool {self.folder} for this node alone, but another node is using it. Stop that one, or choose another spool."
            ) from error
        return stream

    def has_room(self, reserve: int) -> bool:
        """Whether more than ``reserve`` bytes are free."""
        return shutil.disk_usage(self.folder).free > reserve

    def place_of(self, series: str, uid: str, digest: str) -> str:
        """The path of an object, relative to the spool. UIDs come from outside, so file names are hashes of them."""
        return f"objects/{_name(series)}/{_name(uid)}-{digest[:16]}.dcm"

    def keep(self, part: Path, place: str) -> None:
        """Move a written file to its place. When this returns, the file has reached the disk.

        Raises:
            OSError: the file cannot be moved or flushed.
        """
        target = self.folder / place
        known = target.parent.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
        sync_folder_or_fail(target.parent)
        if not known:
            sync_folder_or_fail(target.parent.parent)

    def sweep(self, known: Iterable[str]) -> int:
        """Remove what killed processes left behind: half-written files, and objects whose receipt was never confirmed to the sender.

        Call this before anything else starts.

        Args:
            known: places of the objects in the queue.

        Returns:
            Number of files removed.
        """
        wanted, count = set(known), 0
        for path in [*self.incoming.rglob("*"), *self.objects.rglob("*")]:
            if path.is_file() and path.relative_to(self.folder).as_posix() not in wanted:
                path.unlink()
                count += 1
        for folder in self.objects.iterdir():
            with suppress(OSError):
                folder.rmdir()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(exist_ok=True, mode=0o700)
        return count

    def job_results(self, job: int) -> Path:
        """The folder of a job's results."""
        return self.results / f"{job:08d}"

    def job_work(self, job: int) -> Path:
        """The folder in which a job's results are made."""
        return self.work / f"{job:08d}"

    def size(self) -> int:
        """Size of all objects and results in bytes."""
        total = 0
        for folder in (self.objects, self.results, self.others):
            for parent, _, names in os.walk(folder):
                for name in names:
                    with suppress(OSError):
                        total += os.lstat(Path(parent, name)).st_size
        return total


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:24]


def sync_folder_or_fail(folder: Path) -> None:
    """Flush a folder, so that the file names in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def object_digest(path: Path) -> str:
    """SHA-256 of a DICOM file's transfer syntax and data set. The rest of the file meta information depends on who wrote the file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        syntax = read_file_meta_info(path).TransferSyntaxUID
        read_preamble(stream, force=False)
        from pydicom.filereader import _read_file_meta_info

        _read_file_meta_info(stream)
        digest.update(str(syntax).encode())
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
