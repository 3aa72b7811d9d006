"""Progress records of a batch run: one record for each result.

A record is written before its result is put in place ("unfinished") and again afterwards, so that a run that is killed at
any moment resumes where it stopped. It holds digests of the source and the results: a result is kept only if neither has
changed since. Records hold file names and digests (keyed if de-identified), but never patients or UIDs.
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
"""Added to the name of a result, this gives the name of its record."""
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class ScanJob:
    """One scan, and the results to make from it.

    Attributes:
        source: the scan.
        name: what the records call the job: the scan's path below the searched folder, a tag for DICOM, and the label of the variant.
        request: digest of the source's names and sizes and of everything else that the results depend on.
        options: digest of what the results depend on besides the source.
        targets: by kind, where the results go; the main one comes first.
        record: path of the job's record.
        work: private folder for unfinished results.
        lock: lock file, held by the process that works on the job.
        variant: index of the variant, from 0, if several are made from one scan.
        key: key of the digests; empty for none.
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
        """Path of the main result."""
        return next(iter(self.targets.values()))


@dataclass(frozen=True)
class ResultVariant:
    """One of the variants made from each scan, for example one noise realization.

    Attributes:
        endings: by kind, what the name of the result ends with; the main kind comes first.
        options: what distinguishes the variant from the others, for its digest.
        label: the same in words; empty if there is only one variant.
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
    """List the jobs, in the order of the sources and, for each source, of the variants.

    Args:
        sources: scans of one search.
        targets: for each source and each variant, the file or folder of each kind of result.
        options: everything that the results depend on besides the source and the variant.
        variants: the variants to make from each scan.
        work: this process's private folder for unfinished results.
        records: gives the path of the record from that of the main result.
        key: key of the records' digests; empty for none.

    Raises:
        ScanError: the results of two scans would have the same name.
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
                        f"{name}: expected a unique name for its results, but {taken[target]} has the same; rename one scan"
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
    """The name of a scan in records: its path below the searched folder, and a tag for DICOM."""
    return PurePosixPath(source.relative, source.name).as_posix() + (f"#{source.tag}" if source.tag else "")


def _request(source: ScanSource, options: str) -> str:
    """Digest of file names, sizes and options, which needs no reading. The digest of the contents is recorded separately."""
    files = [(file.name, _size(file)) for file in source.files]
    return _digest([source.kind, source.series_uid, source.part, files, options])


def _size(path: Path) -> int:
    """Size in bytes; -1 for a file that has disappeared since it was found. The error comes when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def digests(job: ScanJob, results: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Digests for a record: of the source, and of each kind of result if given.

    Raises:
        OSError: a file cannot be read.
    """
    source = digest_of(((file.name, file) for file in job.source.files), key=job.key)
    made = {kind: digest_of_result(path, key=job.key).record() for kind, path in (results or {}).items()}
    return {"source": source.sha256, "results": made}


@dataclass(frozen=True)
class Earlier:
    """What an earlier run left where a job's results go.

    Attributes:
        finished: the results are there, unchanged, and made from the source as it is now.
        version: the program's version that made them.
        supersedes: by kind, new names for results of an earlier state of the source; empty if there are none.
    """

    finished: bool = False
    version: str = ""
    supersedes: Mapping[str, str] = field(default_factory=dict)


def look_for_results(job: ScanJob, *, overwrite: bool) -> Earlier:
    """Find a job's earlier results, and decide what to do with them.

    Incomplete results may be replaced: leftovers of a killed run, and results with files that have since been deleted, truncated
    or emptied. Results of an earlier state of the same DICOM series (it has grown, or was corrected) are superseded: they
    are renamed. With ``overwrite`` they are replaced, as are results of another version.

    Raises:
        ScanError: something else exists where a result should go, and ``overwrite`` is off.
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
                f"{changed[0]}: expected the result as it was made, but it has been changed since; choose another --out, or replace "
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
    """New names for the existing results, which no file has yet."""
    number = 1
    while any(target.with_name(f"{target.name}_superseded{number}").exists() for target in job.targets.values()):
        number += 1
    return {kind: f"{target.name}_superseded{number}" for kind, target in job.targets.items() if target.exists()}


def set_aside(job: ScanJob, names: Mapping[str, str]) -> None:
    """Rename superseded results. Those that a killed run has already renamed are skipped."""
    for kind, name in names.items():
        target = job.targets[kind]
        if target.exists() and not target.with_name(name).exists():
            target.rename(target.with_name(name))


def _compared(job: ScanJob, made: Any) -> tuple[list[Path], list[Path]]:
    """Compare results with their digests: paths of those that somebody changed, and of those that are missing or incomplete."""
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
    """Read a record; empty if there is none or it cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(job: ScanJob, state: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write a job's record atomically.

    Args:
        job: the job.
        state: "unfinished", "done" or "failed".
        content: further content of the record.

    Returns:
        The record.
    """
    own = {"request": job.request, "options": job.options}
    record = plain({"source": job.name, "state": state, **content, **own})
    write_text(job.record, json.dumps(record, indent=2) + "\n", job.work.with_name(f"{job.work.name}.json"))
    return record


def write_text(path: Path, text: str, part: Path) -> None:
    """Write a file atomically, by way of ``part``, which is all that a killed process can leave behind."""
    with replacing(path, temporary=part) as temporary:
        temporary.write_text(text, encoding="utf-8")
