"""The manifest of a results folder: one line for each scan."""

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
"""Keys of a record that the manifest does not repeat."""


@dataclass(frozen=True)
class Manifest:
    """The manifest, which holds lines of this run, of concurrent runs and of earlier runs into the same folder.

    Attributes:
        path: the file.
        work: this process's private folder.
        search: identifies the searched source. Lines without a record hold it, so that the next search of the same source can
            replace them.
    """

    path: Path
    work: Path
    search: str

    @property
    def lock(self) -> Path:
        """The lock file, held by the process that changes the manifest."""
        return self.work.parent / "manifest.lock"


def add_to_manifest(manifest: Manifest, record: Mapping[str, Any]) -> None:
    """Append a line.

    Raises:
        OutputError: the manifest cannot be written.
    """
    with one_at_a_time(manifest.lock, "the manifest"):
        try:
            manifest.path.parent.mkdir(parents=True, exist_ok=True)
            if manifest.path.is_fifo():
                manifest.path.unlink()  # opening a pipe would wait forever
            with manifest.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(record))
        except OSError as error:
            raise OutputError(f"Expected to write {manifest.path}, but got: {error.strerror or error}.") from error


def rewrite_manifest(manifest: Manifest, jobs: Iterable[ScanJob], others: Iterable[Mapping[str, Any]] = ()) -> None:
    """Rewrite the manifest from the records: one line for each job, whichever process did it, and one for each of the others.

    Lines of other searches stay. Every process calls this once its share is done.

    Args:
        manifest: the manifest.
        jobs: all jobs of the search, including those of other processes.
        others: records of scans and files that were found but have no job, since they are refused or unreadable.
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
    if not path.is_file():  # missing, or a pipe, which would wait forever
        return []
    try:
        return [f"{line}\n" for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _is_own(line: str, names: set[str], search: str) -> bool:
    """Whether to drop a line, because it is about to be rewritten, or a killed process left it incomplete."""
    try:
        record = parsed_json(line)
        return bool(record["source"] in names or record.get("search") == search)
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain({key: value for key, value in record.items() if key not in _PRIVATE})) + "\n"
