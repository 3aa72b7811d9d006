"""The manifest of a folder of results: a line for every scan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.inference.records import ScanJob, read_record, write_text
from ct_cncl.pipeline.inference.work_folder import one_at_a_time
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.json_values import parsed_json, plain

MANIFEST = "manifest.jsonl"
_PRIVATE = ("request", "options", "digests", "settings", "calibration", "spectra")
"""Of a record, what the manifest does not repeat."""


@dataclass(frozen=True)
class Manifest:
    """Lines of this run, of others that run at the same time, and of earlier ones into the same folder.

    Attributes:
        path: the file.
        work: this process's own folder.
        search: names what was searched; lines of scans that have no record say it, so that the next search of the same
            knows them.
    """

    path: Path
    work: Path
    search: str

    @property
    def lock(self) -> Path:
        """Held by the process that changes the file."""
        return self.work.parent / "manifest.lock"


def add_to_manifest(manifest: Manifest, record: Mapping[str, Any]) -> None:
    """Append a line.

    Raises:
        OutputError: it cannot be written.
    """
    with one_at_a_time(manifest.lock, "the manifest"):
        try:
            manifest.path.parent.mkdir(parents=True, exist_ok=True)
            if manifest.path.is_fifo():
                manifest.path.unlink()  # to open it would wait for ever
            with manifest.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(record))
        except OSError as error:
            raise OutputError(f"Expected to write {manifest.path}, but got: {error.strerror or error}.") from error


def rewrite_manifest(manifest: Manifest, jobs: Iterable[ScanJob], others: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write it from all records: a line for each job, whichever process did it, and for each of the others.

    Lines of other searches stay. Every process does so when its share is done.

    Args:
        manifest: where.
        jobs: all of the search, those of other processes too.
        others: what the search found and no job is made of: refused, or unreadable.
    """
    strays = [_line({**record, "search": manifest.search}) for record in others]
    jobs = list(jobs)
    names = {job.name for job in jobs}
    with one_at_a_time(manifest.lock, "the manifest"):
        kept = [line for line in _lines_of(manifest.path) if not _is_own(line, names, manifest.search)]
        records = [read_record(job.record) for job in jobs]
        done = [_line(record) for record in records if record.get("state") in ("done", "failed")]
        write_text(manifest.path, "".join((*kept, *done, *strays)), manifest.work / MANIFEST)


def _lines_of(path: Path) -> list[str]:
    if not path.is_file():  # or a pipe, which would wait for ever
        return []
    try:
        return [f"{line}\n" for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _is_own(line: str, names: set[str], search: str) -> bool:
    """Whether a line is written again; what a killed process has left half-written goes."""
    try:
        record = parsed_json(line)
        return bool(record["source"] in names or record.get("search") == search)
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain({key: value for key, value in record.items() if key not in _PRIVATE})) + "\n"
