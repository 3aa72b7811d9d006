"""What is done of an archive and what is left: one record beside each result, and a manifest of all records.

A record is written before its result is put in place ("unfinished") and again afterwards, so that a run that was killed at
any moment goes on where it stopped. Records name files and keyed digests, never patients or UIDs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ct_cncl.pipeline.common.distributed import rank
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.series import ScanError, ScanSource

MANIFEST = "manifest.jsonl"
WORK = ".unfinished"
"""Folder among the results for what is being made; empty folders of it vanish, leftovers are removed by the next run."""
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
    """

    source: ScanSource
    name: str
    request: str
    targets: Mapping[str, Path]
    record: Path
    work: Path


def plan(
    sources: Iterable[ScanSource], names: Iterable[Mapping[str, str]], out: Path, options: Mapping[str, Any]
) -> list[Job]:
    """Jobs in the order of their sources.

    Args:
        sources: scans of one search.
        names: for each, the file or folder name of every kind of result.
        out: folder of all results.
        options: everything that the results depend on beside the source.

    Raises:
        ScanError: two scans whose results would have one name.
    """
    jobs = []
    taken: dict[Path, str] = {}
    for source, own in zip(sources, names):
        name = job_name(source)
        folder = out / source.relative
        targets = {kind: folder / file for kind, file in own.items()}
        for target in targets.values():
            if target in taken:
                raise ScanError(
                    f"{name}: expected results of its own name but {taken[target]} has them too; rename one"
                )
            taken[target] = name
        request = _request(source, options)
        record = targets["denoised"].with_name(f"{targets['denoised'].name}.json")
        jobs.append(Job(source, name, request, targets, record, out / WORK / request[:16]))
    return jobs


def job_name(source: ScanSource) -> str:
    """What records call a scan: its path below what was searched, and a tag for DICOM."""
    return PurePosixPath(source.relative, source.name).as_posix() + (f"#{source.tag}" if source.tag else "")


def _request(source: ScanSource, options: Mapping[str, Any]) -> str:
    files = [
        (file.name, file.stat().st_size, 0 if source.kind == "dicom" else file.stat().st_mtime_ns)
        for file in source.files
    ]
    text = json.dumps([source.kind, source.series_uid, source.part, files, plain(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_finished(job: Job, *, overwrite: bool) -> bool:
    """Whether a job's results are there; what is there of it and is not finished may be replaced.

    Raises:
        ScanError: something else lies where a result should go, and ``overwrite`` is off.
    """
    record = read_record(job.record)
    own = record.get("request") == job.request
    there = [path for path in job.targets.values() if path.exists()]
    if own and record.get("state") == "done" and len(there) == len(job.targets):
        return True
    if there and not (own and record.get("state") == _UNFINISHED) and not overwrite:
        raise ScanError(
            f"{there[0]}: exists already, made with other options or from another source; choose another --out, or replace it with "
            "--overwrite"
        )
    return False


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
    with replacing(path, temporary=part) as temporary:
        temporary.write_text(text, encoding="utf-8")


def add_to_manifest(out: Path, record: Mapping[str, Any]) -> None:
    """Append a line; processes on one machine may do so at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / MANIFEST).open("a", encoding="utf-8") as stream:
            stream.write(_line(record))
    except OSError as error:
        raise OutputError(f"Expected to write {out / MANIFEST}, but got: {error.strerror or error}.") from error


def rewrite_manifest(out: Path, jobs: Iterable[Job], others: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write the manifest anew from all records: a line each, those of other processes and earlier runs included.

    Every process does so when its share is done. One that finished between reading and writing is not lost: what was
    written is compared with the records once more.
    """
    strays = [_line(record) for record in others]
    jobs = list(jobs)
    written: list[str] | None = None
    while (lines := _lines(jobs) + strays) != written:
        _write(out / MANIFEST, "".join(lines), out / WORK / f"manifest{rank()}.jsonl")
        written = lines


def _lines(jobs: Iterable[Job]) -> list[str]:
    records = [read_record(job.record) for job in jobs]
    return [_line(record) for record in records if record.get("state") in ("done", "failed")]


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain({key: value for key, value in record.items() if key != "request"})) + "\n"
