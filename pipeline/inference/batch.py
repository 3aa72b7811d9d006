"""A batch run: each scan is processed, recorded and put in place, whether or not others fail.

What is done with a scan is a :class:`~ct_cncl.pipeline.inference.task.Task`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ct_cncl.pipeline.common.distributed import is_main_process, rank, wait_for_others, world_size
from ct_cncl.pipeline.inference.failures import failure, outcome_of
from ct_cncl.pipeline.inference.manifest import Manifest, add_to_manifest, rewrite_manifest
from ct_cncl.pipeline.inference.places import Places
from ct_cncl.pipeline.inference.records import (
    RECORD_SUFFIX,
    ScanJob,
    digests,
    job_name,
    look_for_results,
    plan,
    set_aside,
    write_record,
)
from ct_cncl.pipeline.inference.streaming import Outcome
from ct_cncl.pipeline.inference.task import RunOptions, Task
from ct_cncl.pipeline.inference.work_folder import one_at_a_time
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.file_names import LONGEST, fitting
from ct_cncl.transforms.common.locks import lock
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.common.redaction import redacted
from ct_cncl.transforms.common.terminal import say, shown
from ct_cncl.transforms.series import ScanError, ScanSource
from ct_cncl.transforms.series.content import content_digest
from ct_cncl.transforms.series.deidentify import Deidentifier, pseudonym_key
from ct_cncl.transforms.series.find import Broken, Found, choose
from ct_cncl.transforms.series.origin import without_derived
from ct_cncl.transforms.series.results import open_results, put_in_place, result_name
from ct_cncl.transforms.series.slices import open_slices
from ct_cncl.transforms.series.values import Clipped

_MOST_NAMED = 5
"""How many unreadable files the terminal names. The manifest names all of them."""


class ArchiveRun:
    """A run of tasks over the scans that a search found.

    Args:
        source: the file or folder that was searched.
        places: where results, records and manifest go.
        found: what the search found.
        tasks: what to do with each scan.
        asked: the options.
        work: this process's private folder, on the same file system as the results.

    Raises:
        ScanError: no scan was found or chosen, or the results do not fit where they should go.
    """

    def __init__(
        self, source: Path, places: Places, found: Found, *, tasks: Sequence[Task], asked: RunOptions, work: Path
    ) -> None:
        self.source, self.places, self.found = source, places, found
        self.tasks, self.asked = tasks, asked
        variants = [task.variant for task in tasks]
        self.deidentifier = Deidentifier(pseudonym_key(places.key_folder)) if asked.deidentify else None
        chosen = choose(found.scans, asked.series)
        scans, self._refused, self._left_out = (
            (chosen, {}, {}) if asked.derived else without_derived(chosen, found.derived)
        )
        if not scans and not found.broken:
            raise self._nothing()
        broken = [item.scan for item in found.broken if item.scan is not None and not asked.series]
        scans = [self._named(scan) for scan in (*scans, *dict.fromkeys(broken))]
        self._refused = {self._named(scan): what for scan, what in self._refused.items()}
        options = {**tasks[0].options, "compression": asked.compression, "deidentify": asked.deidentify}
        places.check(scans, variants)
        targets = [[places.targets(scan, variant.endings) for variant in variants] for scan in scans]
        key = self.deidentifier.key if self.deidentifier is not None else b""
        self.jobs = plan(scans, targets, options, variants, work=work, records=places.record, key=key)
        self.manifest = None if places.manifest is None else Manifest(places.manifest, work, self._search_name())
        self._superseded: dict[Path, Mapping[str, str]] = {}
        self._known = {item.scan.files: item.error for item in found.broken if item.scan is not None}
        self._unplaced = [self._stray(item) for item in found.broken if item.scan is None]
        self.single = len(scans) + len(self._unplaced) == 1

    def _search_name(self) -> str:
        """An identifier of the searched source that does not reveal its name."""
        path = str(self.source.resolve())
        if self.deidentifier is not None:
            return self.deidentifier.uid(path)[-12:]
        return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def _nothing(self) -> ScanError:
        if self._refused:
            kinds = ", ".join(f"{count} x {what}" for what, count in sorted(Counter(self._refused.values()).items()))
            return ScanError(
                f"{self.source}: expected scans as a scanner made them but got only {kinds}; name the originals, or {self.tasks[0].verb[0]} these anyway "
                "with --derived"
            )
        # The list of skipped files holds file names and tag values.
        seen = self.found.instead if self.deidentifier is None else "only files of other kinds; name the scans' folder"
        return ScanError(f"{self.source}: expected a CT series in DICOM or a volume but got {seen}")

    def _named(self, scan: ScanSource) -> ScanSource:
        """A scan whose name leaves room for that of the record; with --deidentify, the name is a hash and the folder is flat."""
        if self.deidentifier is None:
            endings = [end for task in self.tasks for end in task.variant.endings.values()]
            beside = max(len(os.fsencode(result_name(scan, end, nifti=self.places.nifti))) for end in endings)
            room = LONGEST - len(RECORD_SUFFIX) - (beside - len(os.fsencode(scan.name)))
            return replace(scan, name=fitting(scan.name, room))
        uid = self.deidentifier.uid(f"{scan.series_uid}.{scan.part}" if scan.series_uid else str(scan.path))
        return replace(scan, name=f"series_{uid[-12:]}", relative=".", series_uid=str(uid))

    def _stray(self, item: Broken) -> dict[str, Any]:
        root = self.source if self.source.is_dir() else self.source.parent
        name = item.path.relative_to(root).as_posix() if item.path.is_relative_to(root) else item.path.name
        if self.deidentifier is not None:
            name = f"file_{self.deidentifier.uid(name)[-12:]}"
        return {"source": name, "state": "failed", **self._failure(item.error, (item.path,))}

    def _refusal(self, scan: ScanSource) -> dict[str, Any]:
        reason = f"{self._refused[scan]}; {self.tasks[0].verb[1]} with --derived only"
        return {
            "source": job_name(scan),
            "state": "refused",
            "result": None,
            "seconds": 0.0,
            "warnings": [],
            "error": reason,
        }

    def _failure(self, error: BaseException, files: Sequence[Path] = ()) -> dict[str, Any]:
        return failure(error, files, anonymous=self.deidentifier is not None)

    def _public(self, error: Exception) -> Exception:
        """The error; with --deidentify, one that says no more than the manifest."""
        return error if self.deidentifier is None else ScanError(self._failure(error)["error"])

    def all(self) -> list[Path]:
        """Process this rank's scans.

        Raises:
            ScanError: the only scan failed, or some of several did.
        """
        if is_main_process():
            self._announce()
        if self.single and self.found.broken:
            raise self._public(self.found.broken[0].error)
        strays = [str(record["error"]) for record in self._unplaced]
        share = self.jobs[rank() :: world_size()]
        went_well = [self._attempt(job, wait=False) for job in share]
        for number, well in enumerate(went_well):
            if well is None:  # another process was working on it, so it comes last
                went_well[number] = self._attempt(share[number], wait=True)
        done = [job for job, well in zip(share, went_well) if well]
        failed = len(share) - len(done)
        if self.manifest is not None:
            rewrite_manifest(self.manifest, self.jobs, [*self._unplaced, *map(self._refusal, self._refused)])
        wait_for_others()
        if self.asked.strict and self.found.unread:
            raise ScanError(
                f"{self.source}: expected to read everything there (--strict) but passed over {self.found.others}; fetch it, or "
                "omit --strict"
            )
        if failed or strays:
            why = f"; {self.places.manifest} says why" if self.places.manifest else ""
            raise ScanError(f"{self.source}: {outcome_of(len(share), failed, strays, self.tasks[0].verb)}{why}")
        return [job.result for job in done]

    def _attempt(self, job: ScanJob, *, wait: bool) -> bool | None:
        """Process one scan, unless it has been done already, and return whether that succeeded.

        An error is raised only if this is the run's single scan. Otherwise it is recorded, and the other scans are still processed.
        If another process is working on the scan, wait for it, or return None if ``wait`` is False.
        """
        try:
            with one_at_a_time(job.lock, job.name, waiting=self._say) if wait else lock(job.lock) as mine:
                if mine is False:
                    return None
                earlier = look_for_results(job, overwrite=self.asked.overwrite)
                if earlier.finished:
                    other = f" (made by version {earlier.version}; use --overwrite to make it again)"
                    self._say(f"{job.name}: kept from an earlier run{other if earlier.version != __version__ else ''}")
                else:
                    self._superseded[job.record] = earlier.supersedes
                    self._one(job)
        except Exception as error:
            if self.single:
                public = self._public(error)
                raise public from (None if public is not error else error.__cause__)
            self._failed(job, error)
            return False
        return True

    def _announce(self) -> None:
        if len(self.jobs) > len(self.tasks):
            for source in dict.fromkeys(job.source for job in self.jobs):
                self._say(f"found {job_name(source)}, {counted(len(source.files), 'file')}")
        for note in self.found.notes:
            say(f"warning: {note}", error=True)
        for record in self._unplaced[:_MOST_NAMED]:
            say(f"{record['source']}: error: {record['error']}", error=True)
        if self.found.passed_over:
            count = sum(map(len, self.found.passed_over.values()))  # found.others holds file names and tag values
            self._say(f"passed over {self.found.others if self.deidentifier is None else counted(count, 'file')}")
        for scan, what in self._refused.items():
            self._say(f"passed over {job_name(scan)}: {what}; --derived {self.tasks[0].verb[0]}s it anyway")

    def _one(self, job: ScanJob) -> None:
        """Process one scan. Its results appear once all of them are complete."""
        if job.source.files in self._known:
            raise self._known[job.source.files]
        try:
            outcome, made, clipped = self._made(job)
        finally:
            shutil.rmtree(job.work, ignore_errors=True)
        said = [found.described(kind, outcome.voxels) for kind, found in clipped.items() if found.count]
        counts = {kind: found.count for kind, found in clipped.items() if found.count}
        clipping = {"clipped_voxels": counts} | ({"clipped": said} if said else {})
        record = write_record(job, "done", self._record(job, outcome) | clipping | made)
        if self.manifest is not None:
            add_to_manifest(self.manifest, record)
        if self._superseded.get(job.record):
            names = ", ".join(self._superseded[job.record].values())
            self._say(f"{job.name}: its source has changed; the earlier result is now called {names}")
        self._say(
            f"{job.name}: {counted(outcome.slices, 'slice')}, {outcome.slices / max(outcome.seconds, 1e-9):.2f} slices/s"
        )
        for warning in (*outcome.warnings, *said):
            say(f"{job.name}: warning: {warning}", error=True)

    def _made(self, job: ScanJob) -> tuple[Outcome, dict[str, Any], dict[str, Clipped]]:
        task = self.tasks[job.variant]
        shutil.rmtree(job.work, ignore_errors=True)
        scratch, made = job.work / "scratch", job.work / "made"
        for folder in (scratch, made):
            folder.mkdir(parents=True)
        started = time.perf_counter()
        before = digests(job)["source"]
        slices = self.places.as_named(open_slices(job.source, scratch))
        slices.problems += [*self._unreadable_beside(job.source), *self._left_out.get(job.source.files, ())]
        if slices.problems and self.asked.strict:
            raise ScanError(
                f"{job.source.path}: {slices.problems[0]}; omit --strict to {self.tasks[0].verb[0]} each slice anyway"
            )
        warnings = task.begin(slices)
        if self.deidentifier is not None:  # the warnings also go into the result's header
            warnings = [redacted(warning) for warning in warnings]
        derivation = task.derivation(
            version=__version__,
            warnings=tuple(warnings),
            compression=self.asked.compression,
            content=content_digest(job.source.files) if job.source.kind == "dicom" else "",
            made=datetime.now(timezone.utc),
        )
        writer = open_results(
            slices,
            tuple(job.targets),
            made,
            derivation,
            compression=self.asked.compression,
            deidentifier=self.deidentifier,
            target=task.target(slices, job.result),
        )
        with tqdm(total=slices.count, desc=shown(job.name), unit="slice", disable=not self._shows_progress()) as bar:
            outcome = task.apply(slices, writer, bar.update)
        parts = self.places.as_files(writer.finish())
        outcome.warnings = warnings
        found = digests(job, parts)
        if found["source"] != before:
            raise ScanError(
                f"{job.source.path}: expected files that do not change during the run, but they did; run again"
            )
        names = self._superseded.get(job.record) or {}
        superseding = {"supersedes": dict(names)} if names else {}
        write_record(job, "unfinished", superseding)
        set_aside(job, names)
        put_in_place(parts, job.targets)
        outcome.seconds = time.perf_counter() - started
        task.finish(job, outcome, single=self.single)
        return outcome, {"digests": found} | superseding, writer.clipped

    def _unreadable_beside(self, scan: ScanSource) -> list[str]:
        """Warn of unreadable files in a series' folders: they do not say which series they belong to, and may be part of this one."""
        folders = {file.parent for file in scan.files}
        count = sum(item.scan is None and item.path.parent in folders for item in self.found.broken)
        count += sum(path.parent in folders for path in self.found.unread)
        if not count or scan.kind != "dicom":
            return []
        return [f"expected readable files beside it but got {count} that cannot be read and may hold slices of it"]

    def _say(self, text: str) -> None:
        if self.asked.progress:
            say(text)

    def _shows_progress(self) -> bool:
        return self.asked.progress and is_main_process() and sys.stderr.isatty()

    def _record(self, job: ScanJob, outcome: Outcome) -> dict[str, Any]:
        return {
            "result": {kind: target.relative_to(self.places.folder).as_posix() for kind, target in job.targets.items()},
            "seconds": round(outcome.seconds, 3),
            "slices": outcome.slices,
            "warnings": outcome.warnings,
            "error": None,
            "version": __version__,
            **outcome.facts,
        }

    def _failed(self, job: ScanJob, error: BaseException) -> None:
        content = self._failure(error, job.source.files)
        say(f"{job.name}: error: {content['error']}", error=True)
        try:
            if not any(target.exists() for target in job.targets.values()):
                record = write_record(job, "failed", content)
                if self.manifest is not None:
                    add_to_manifest(self.manifest, record)
                return
        except OSError as second:  # most often the same full disk
            say(f"{job.name}: warning: {second}", error=True)
        # Existing results keep their record, so the failure goes only into the manifest.
        self._unplaced.append({"source": job.name, "state": "failed", **content})
