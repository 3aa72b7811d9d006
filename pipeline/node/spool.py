"""The spool: objects and results on disk, each under its name only when it is whole and has reached the disk."""

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
    """Whether an error says that the disk is full; SQLite and wrapped errors included."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in _FULL or "disk is full" in str(seen) or "No space left" in str(seen):
            return True
        seen = seen.__cause__
    return False


class Spool:
    """The folders of a node.

    Args:
        folder: all of it lies here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming, self.objects = folder / "incoming", folder / "objects"
        self.others, self.work, self.results = folder / "others", folder / "work", folder / "results"

    def prepare(self) -> None:
        """Make the folders; nobody else on this machine may read them."""
        for path in (self.folder, self.incoming, self.objects, self.others, self.work, self.results):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lock(self) -> IO[str]:
        """Hold the spool for as long as the file is open: one node each.

        Raises:
            NodeError: another process has it.
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
        """Where an object goes, relative to the spool; UIDs come from outside and never become names."""
        return f"objects/{_name(series)}/{_name(uid)}-{digest[:16]}.dcm"

    def keep(self, part: Path, place: str) -> None:
        """Give a written file its name; it has reached the disk when this returns.

        Raises:
            OSError: it could not.
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
        """Remove what killed processes have left, before anything starts: half-written files, and objects that nobody was told are safe.

        Args:
            known: places of the objects that the queue knows.

        Returns:
            Files removed.
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
        """Where a job's results lie."""
        return self.results / f"{job:08d}"

    def job_work(self, job: int) -> Path:
        """Where they are being made."""
        return self.work / f"{job:08d}"

    def size(self) -> int:
        """Bytes of objects and results."""
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
    """Make names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def object_digest(path: Path) -> str:
    """SHA-256 of a DICOM file's data set and its transfer syntax; the rest of the file meta says who wrote it."""
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
