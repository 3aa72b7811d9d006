"""Progress records of a batch run: one record for each result.

A record is written before its result is put in place ("unfinished") and again afterwards, so that a run that was killed at
any moment resumes where it stopped. It holds digests of source and results: what is kept from before is what was made, from
what lies there now. Records name files and digests, keyed where they are de-identified, never patients or UIDs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.digests import digest_of, digest_of_result
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain, read_json
from ct_cncl.transforms.series import ScanError, ScanSource

RECORD_SUFFIX = ".json"
"""Of a result's record: the result's own name, and this."""
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class ScanJob:
    """One scan, and what is to be made of it.

    Attributes:
        source: the scan.
        name: what the records call it: its path below what was searched, a tag for DICOM, and which of several things is made of it.
        request: digest of the source and of everything its result depends on; equal digests mean equal results.
        options: digest of what besides the source it depends on.
        targets: by kind, where results go; the main one comes first.
        record: the file that says what became of it.
        work: a folder of its own for what is being made.
        lock: held by the process that works on it.
        variant: which of several things that are made of one scan, from 0.
        key: of the digests; empty for none.
    """

    source: ScanSource
    name: str
    request: str
    options: str
    targets: Mapping[str, Path]
    record: Path
    work: Path
    lock: Path
    variant: int = 0
    key: bytes = b""

    @property
    def result(self) -> Path:
        """The main one."""
        return next(iter(self.targets.values()))


@dataclass(frozen=True)
class ResultVariant:
    """One of the things that are made of each scan.

    Attributes:
        endings: by kind, the main one first, what the name of its result ends with.
        options: what tells it from the others, for its digest.
        label: the same in words; empty where there is but one.
    """

    endings: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


def plan(
    sources: Iterable[ScanSource],
    targets: Iterable[Sequence[Mapping[str, Path]]],
    options: Mapping[str, Any],
    variants: Sequence[ResultVariant],
    *,
    work: Path,
    records: Callable[[Path], Path],
    key: bytes = b"",
) -> list[ScanJob]:
    """Jobs in the order of their sources, and of the variants of each.

    Args:
        sources: scans of one search.
        targets: for each and each variant, by kind, the file or folder of a result.
        options: everything that the results depend on besides the source and the variant.
        variants: what is made of each scan.
        work: this process's own folder for what is being made.
        records: where the record of a denoised scan lies.
        key: of the records' digests; empty for none.

    Raises:
        ScanError: two scans whose results would have one name.
    """
    jobs = []
    taken: dict[Path, str] = {}
    chosen = [_digest(plain({**options, **variant.options})) for variant in variants]
    for source, each in zip(sources, targets):
        for number, (variant, own) in enumerate(zip(variants, each)):
            name = " ".join(part for part in (job_name(source), variant.label) if part)
            for target in own.values():
                if target in taken:
                    raise ScanError(
                        f"{name}: expected results of its own name but {taken[target]} has them too; rename one"
                    )
                taken[target] = name
            request = _request(source, chosen[number])
            main = next(iter(own.values()))
            lock = work.parent / f"{_digest(str(main.absolute()))[:16]}.lock"
            place = work / request[:16]
            jobs.append(
                ScanJob(source, name, request, chosen[number], dict(own), records(main), place, lock, number, key)
            )
    return jobs


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


def job_name(source: ScanSource) -> str:
    """What records call a scan: its path below what was searched, and a tag for DICOM."""
    return PurePosixPath(source.relative, source.name).as_posix() + (f"#{source.tag}" if source.tag else "")


def _request(source: ScanSource, options: str) -> str:
    """Of names, sizes and options: what can be known without reading all files; their digest comes on top of it."""
    files = [(file.name, _size(file)) for file in source.files]
    return _digest([source.kind, source.series_uid, source.part, files, options])


def _size(path: Path) -> int:
    """Bytes; -1 for a file that has disappeared since it was found; reading it later is the error."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def digests(job: ScanJob, results: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Of the source and, where there are any, of results by kind, for a record.

    Raises:
        OSError: a file that cannot be read.
    """
    source = digest_of(((file.name, file) for file in job.source.files), key=job.key)
    made = {kind: digest_of_result(path, key=job.key).record() for kind, path in (results or {}).items()}
    return {"source": source.sha256, "results": made}


@dataclass(frozen=True)
class Earlier:
    """What lies where a job's results go.

    Attributes:
        finished: they are there, as they were made and from the source as it is now.
        version: that made them.
        supersedes: by kind, the names that results of an earlier state of the source get; empty where there are none.
    """

    finished: bool = False
    version: str = ""
    supersedes: Mapping[str, str] = field(default_factory=dict)


def look_for_results(job: ScanJob, *, overwrite: bool) -> Earlier:
    """What is there of a job's results, and what becomes of it.

    What is not finished may be replaced: what a killed run has left, and results of which files were deleted, cut short or
    emptied since. Results of the same DICOM series as it was before (it has grown, or was corrected) are superseded: they
    get another name. With ``overwrite`` they are replaced, and so is what another version made.

    Raises:
        ScanError: something else lies where a result should go, and ``overwrite`` is off.
    """
    record = read_record(job.record)
    own, state = record.get("request") == job.request, record.get("state")
    there = [path for path in job.targets.values() if path.exists()]
    if own and state == _UNFINISHED:
        return Earlier(supersedes=_names(record))
    made = record.get("digests")
    made = made if isinstance(made, dict) else {}
    if own and state == "done" and there and made.get("source") == digests(job)["source"]:
        changed, lost = _compared(job, made.get("results"))
        if not changed and not lost:
            version = str(record.get("version"))
            return Earlier(finished=not (overwrite and version != __version__), version=version)
        if changed and not overwrite:
            raise ScanError(
                f"{changed[0]}: expected the result that was made there but it was changed since; choose another --out, or replace "
                "it with --overwrite"
            )
        return Earlier()
    if not there or overwrite:
        return Earlier()
    same_series = (
        job.source.kind == "dicom" and record.get("source") == job.name and isinstance(made.get("source"), str)
    )
    if same_series and state == "done" and record.get("options") == job.options:
        return Earlier(supersedes=_superseded_names(job))
    raise ScanError(
        f"{there[0]}: exists already, made with other options or from another source; choose another --out, or replace it with "
        "--overwrite"
    )


def _names(record: Mapping[str, Any]) -> dict[str, str]:
    names = record.get("supersedes")
    return {str(kind): str(name) for kind, name in names.items()} if isinstance(names, dict) else {}


def _superseded_names(job: ScanJob) -> dict[str, str]:
    """Names beside the results that none has yet."""
    number = 1
    while any(target.with_name(f"{target.name}_superseded{number}").exists() for target in job.targets.values()):
        number += 1
    return {kind: f"{target.name}_superseded{number}" for kind, target in job.targets.items() if target.exists()}


def set_aside(job: ScanJob, names: Mapping[str, str]) -> None:
    """Give superseded results their other names, those that have them already left out: a killed run began it."""
    for kind, name in names.items():
        target = job.targets[kind]
        if target.exists() and not target.with_name(name).exists():
            target.rename(target.with_name(name))


def _compared(job: ScanJob, made: Any) -> tuple[list[Path], list[Path]]:
    """Results that somebody changed, and those of which something is missing: there is less of them than was made."""
    changed, lost = [], []
    for kind, target in job.targets.items():
        before = made.get(kind) if isinstance(made, dict) else None
        now = digest_of_result(target, key=job.key).record() if target.is_file() or target.is_dir() else None
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
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(job: ScanJob, state: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write what became of a job, at once or not at all.

    Args:
        job: the job.
        state: "unfinished", "done" or "failed".
        content: what else to state.

    Returns:
        The record.
    """
    own = {"request": job.request, "options": job.options}
    record = plain({"source": job.name, "state": state, **content, **own})
    write_text(job.record, json.dumps(record, indent=2) + "\n", job.work.with_name(f"{job.work.name}.json"))
    return record


def write_text(path: Path, text: str, part: Path) -> None:
    """Write a file at once; what a killed process leaves lies under one name, among what is unfinished."""
    with replacing(path, temporary=part) as temporary:
        temporary.write_text(text, encoding="utf-8")
