"""What is done of an archive and what is left: one record beside each result, and a manifest of all records.

A record is written before its result is put in place ("unfinished") and again afterwards, so that a run that was killed at
any moment goes on where it stopped. It holds digests of source and results: what is kept from before is what was made, from
what lies there now. Records name files and digests, keyed where they are de-identified, never patients or UIDs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ct_cncl.transforms.common.digests import digest_of, digest_of_result
from ct_cncl.transforms.common.file_names import fitting
from ct_cncl.transforms.common.locks import lock
from ct_cncl.transforms.files import OutputError
from ct_cncl.transforms.prepare import plain
from ct_cncl.transforms.series import ScanError, ScanSource

MANIFEST = "manifest.jsonl"
WORK = ".unfinished"
"""Folder among the results for what is being made; empty folders of it vanish, leftovers are removed by the next run."""
_WORK_NAME = re.compile(r"[0-9a-f]{16}")
_OWN_NAME = re.compile(r"(?:manifest|unzipped)-(?P<host>.+)-(?P<pid>\d+)(?:\.jsonl)?")
_OLD_SECONDS = 7 * 24 * 3600
RECORD_SUFFIX = ".json"
"""Of a result's record: the result's own name, and this."""
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Job:
    """One scan to be denoised.

    Attributes:
        source: the scan.
        name: what the records call it: its path below what was searched, and a tag for DICOM.
        request: digest of the source and of everything its result depends on; equal digests mean equal results.
        targets: by kind, where results go.
        record: the file that says what became of it.
        work: a folder of its own for what is being made.
        key: of the digests; empty for none.
    """

    source: ScanSource
    name: str
    request: str
    targets: Mapping[str, Path]
    record: Path
    work: Path
    key: bytes = b""

    @property
    def lock(self) -> Path:
        """Held by the process that is at the job."""
        return self.work.with_name(f"{self.work.name}.lock")


def plan(
    sources: Iterable[ScanSource],
    names: Iterable[Mapping[str, str]],
    out: Path,
    options: Mapping[str, Any],
    *,
    key: bytes = b"",
) -> list[Job]:
    """Jobs in the order of their sources.

    Args:
        sources: scans of one search.
        names: for each, the file or folder name of every kind of result.
        out: folder of all results.
        options: everything that the results depend on beside the source.
        key: of the records' digests; empty for none.

    Raises:
        ScanError: two scans whose results would have one name.
    """
    jobs = []
    taken: dict[Path, str] = {}
    for source, own in zip(sources, names):
        name = PurePosixPath(source.relative, source.name).as_posix() + (f"#{source.tag}" if source.tag else "")
        folder = out / source.relative
        targets = {kind: folder / file for kind, file in own.items()}
        for target in targets.values():
            if target in taken:
                raise ScanError(
                    f"{name}: expected results of its own name but {taken[target]} has them too; rename one"
                )
            taken[target] = name
        request = _request(source, options)
        record = targets["denoised"].with_name(f"{targets['denoised'].name}{RECORD_SUFFIX}")
        jobs.append(Job(source, name, request, targets, record, out / WORK / request[:16], key))
    return jobs


def _request(source: ScanSource, options: Mapping[str, Any]) -> str:
    """Of names, sizes and options: what can be known without reading all files; their digest comes on top of it."""
    files = [(file.name, _size(file)) for file in source.files]
    place = [source.relative, source.name]
    text = json.dumps([source.kind, place, source.series_uid, source.part, files, plain(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _size(path: Path) -> int:
    """Bytes; -1 for a file that is gone since it was found, which is an error when its turn comes."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def digests(job: Job, results: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Of the source and, where there are any, of results by kind, for a record.

    Raises:
        OSError: a file that cannot be read.
    """
    source = digest_of(((file.name, file) for file in job.source.files), key=job.key)
    made = {kind: digest_of_result(path, key=job.key).record() for kind, path in (results or {}).items()}
    return {"source": source.sha256, "results": made}


def is_finished(job: Job, *, overwrite: bool) -> bool:
    """Whether a job's results are there, as they were made and from the source as it is now.

    What is not finished may be replaced: what a killed run has left, and results of which files were deleted, cut short or
    emptied since.

    Raises:
        ScanError: something else lies where a result should go, and ``overwrite`` is off.
    """
    record = read_record(job.record)
    own, state = record.get("request") == job.request, record.get("state")
    there = [path for path in job.targets.values() if path.exists()]
    if own and state == "done" and there:
        made = record.get("digests")
        made = made if isinstance(made, dict) else {}
        if made.get("source") == digests(job)["source"]:
            changed, lost = _compared(job, made.get("results"))
            if not changed and not lost:
                return True
            if changed and not overwrite:
                raise ScanError(
                    f"{changed[0]}: expected the result that was made there but it was changed since; choose another --out, or replace "
                    "it with --overwrite"
                )
            return False
    if there and not (own and state == _UNFINISHED) and not overwrite:
        raise ScanError(
            f"{there[0]}: exists already, made with other options or from another source; choose another --out, or replace it with "
            "--overwrite"
        )
    return False


def _compared(job: Job, made: Any) -> tuple[list[Path], list[Path]]:
    """Results that somebody changed, and those of which something is missing: there is less of them than was made."""
    changed, lost = [], []
    for kind, target in job.targets.items():
        before = made.get(kind) if isinstance(made, dict) else None
        now = digest_of_result(target, key=job.key).record() if target.exists() else None
        if now == before and now is not None:
            continue
        if before is None or (now is not None and now["files"] >= before["files"] and now["size"] >= before["size"]):
            changed.append(target)
        else:
            lost.append(target)
    return changed, lost


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(job: Job, state: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write what became of a job, at once or not at all.

    Args:
        job: the job.
        state: "unfinished", "done" or "failed".
        content: what else to state.

    Returns:
        The record.
    """
    record = plain({"source": job.name, "state": state, **content, "request": job.request})
    _write(job.record, json.dumps(record, indent=2) + "\n", job.work.with_name(f"{job.work.name}.json"))
    return record


def _write(path: Path, text: str, part: Path) -> None:
    """Write a file at once; what a killed process leaves lies under one name, among what is unfinished."""
    try:
        for folder in (part.parent, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"Expected to write {path}, but got: {error.strerror or error}.") from error


def add_to_manifest(out: Path, record: Mapping[str, Any]) -> None:
    """Append a line; processes on one machine may do so at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / MANIFEST).open("a", encoding="utf-8") as stream:
            stream.write(_line(record))
    except OSError as error:
        raise OutputError(f"Expected to write {out / MANIFEST}, but got: {error.strerror or error}.") from error


def settle_manifest(out: Path, jobs: Iterable[Job], others: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write the manifest anew from all records: a line each, those of other processes and earlier runs included.

    Every process does so when its share is done. One that finished between reading and writing is not lost: what was
    written is compared with the records once more.
    """
    strays = [_line(record) for record in others]
    jobs = list(jobs)
    written: list[str] | None = None
    while (lines := _lines(jobs) + strays) != written:
        _write(out / MANIFEST, "".join(lines), out / WORK / f"manifest-{own_name()}.jsonl")
        written = lines


def own_name() -> str:
    """This process among all that may write into one folder, on several machines perhaps."""
    return f"{fitting(socket.gethostname(), 64)}-{os.getpid()}"


def remove_leftovers(out: Path) -> None:
    """Remove what killed runs have left among what is unfinished; what a process is at stays."""
    for path in sorted((out / WORK).glob("*")):
        own = _OWN_NAME.fullmatch(path.name)
        name = path.name.partition(".")[0]
        if own is not None:
            if not _may_be_alive(own["host"], int(own["pid"]), path):
                _remove(path)
        elif _WORK_NAME.fullmatch(name) and path.suffix != ".lock":
            with lock(out / WORK / f"{name}.lock") as mine:
                if mine is not False:
                    _remove(path)
        elif path.suffix == ".lock":
            with lock(path):  # removes it, if nobody has it
                pass
    with suppress(OSError):
        (out / WORK).rmdir()


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _may_be_alive(host: str, pid: int, path: Path) -> bool:
    """Whether a process may still need its file; of other machines nothing is known, and a week is taken for enough."""
    if host == fitting(socket.gethostname(), 64):
        return _is_alive(pid)
    return time.time() - path.lstat().st_mtime < _OLD_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _lines(jobs: Iterable[Job]) -> list[str]:
    records = [read_record(job.record) for job in jobs]
    return [_line(record) for record in records if record.get("state") in ("done", "failed")]


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain({key: value for key, value in record.items() if key not in ("request", "digests")})) + "\n"
