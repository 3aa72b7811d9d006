"""One run over what was found: each scan denoised, recorded and put in place, whatever becomes of the others."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ct_cncl.pipeline.archive import (
    MANIFEST,
    RECORD_SUFFIX,
    WORK,
    Job,
    add_to_manifest,
    digests,
    is_finished,
    plan,
    remove_leftovers,
    settle_manifest,
    write_record,
)
from ct_cncl.pipeline.denoise import Outcome, Settings, denoise_slices, look_at
from ct_cncl.pipeline.engines.distributed import is_main_process, rank, wait_for_others, world_size
from ct_cncl.pipeline.report import picture_panel, save_png
from ct_cncl.pipeline.report.panel import DIFFERENCE_WINDOW, Tile
from ct_cncl.pipeline.weights import Weights
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.file_names import LONGEST, fitting
from ct_cncl.transforms.common.locks import lock
from ct_cncl.transforms.common.redaction import redacted
from ct_cncl.transforms.common.terminal import say, shown
from ct_cncl.transforms.hu import WINDOWS
from ct_cncl.transforms.series import ScanError, ScanSource
from ct_cncl.transforms.series.deidentify import Deidentifier, key_of
from ct_cncl.transforms.series.derived import Derivation
from ct_cncl.transforms.series.dicom_file import COMPRESSIONS
from ct_cncl.transforms.series.find import Broken, Found, choose
from ct_cncl.transforms.series.results import open_results, put_in_place, result_name
from ct_cncl.transforms.series.slices import open_slices


@dataclass(frozen=True)
class DenoiseOptions:
    """What ``ct-cncl denoise`` is asked for beside source and output; see its ``--help``."""

    weights: str | Path | None = None
    strength: float = 1.0
    save: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    strict: bool = False
    compression: str = "none"
    deidentify: bool = False
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    precision: str = "fp32"
    preview: Path | None = None
    overwrite: bool = False
    progress: bool = True
    trust: bool = False

    def settings(self) -> Settings:
        """How the network is applied.

        Raises:
            ValueError: a value outside its range.
        """
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"Expected a compression out of {', '.join(COMPRESSIONS)}, but got {self.compression!r}.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"Expected at least 1 thread, but got {self.threads}.")
        return Settings(self.strength, self.save, self.batch_size)


class ArchiveRun:
    """What was found, and what is done with it.

    Args:
        source: what was searched.
        out: folder for the results.
        found: by the search.
        weights: the network.
        asked: the options.

    Raises:
        ScanError: nothing found, or nothing that was chosen.
    """

    def __init__(self, source: Path, out: Path, found: Found, *, weights: Weights, asked: DenoiseOptions) -> None:
        self.source, self.out, self.found = source, out, found
        self.weights, self.settings, self.asked = weights, asked.settings(), asked
        self.deidentifier = Deidentifier(key_of(out)) if asked.deidentify else None
        scans = choose(found.scans, asked.series)
        if not scans and not found.broken:
            seen = "an empty folder"
            if found.passed_over:
                seen = f"only {found.others}" if self.deidentifier is None else "only files of other kinds"
            raise ScanError(
                f"{source}: expected a CT series in DICOM or a volume but got {seen}; name the scans' folder"
            )
        broken = [item.scan for item in found.broken if item.scan is not None and not asked.series]
        scans = [self._named(scan) for scan in (*scans, *dict.fromkeys(broken))]
        options = {
            "weights": weights.checksum,
            "strength": asked.strength,
            "kinds": self.settings.kinds,
            "compression": asked.compression,
            "deidentify": asked.deidentify,
        } | ({} if weights.precision == "fp32" else {"precision": weights.precision})
        names = [{kind: result_name(scan, kind) for kind in self.settings.kinds} for scan in scans]
        key = self.deidentifier.key if self.deidentifier is not None else b""
        self.jobs = plan(scans, names, out, options, key=key)
        self._known = {item.scan.files: item.error for item in found.broken if item.scan is not None}
        self._unplaced = [self._stray(item) for item in found.broken if item.scan is None]
        self.single = len(self.jobs) + len(self._unplaced) == 1

    def _named(self, scan: ScanSource) -> ScanSource:
        """Names that leave room for the record's; with --deidentify, after hashes, in one folder."""
        if self.deidentifier is None:
            beside = max(len(os.fsencode(result_name(scan, kind))) for kind in self.settings.kinds)
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

    def _failure(self, error: BaseException, files: Sequence[Path] = ()) -> dict[str, Any]:
        kind = "" if isinstance(error, (ValueError, OSError)) else f"unexpected {type(error).__name__}: "
        text = " ".join(f"{kind}{error}".split())
        if self.deidentifier is not None:  # what precedes is a path
            text = text[max(text.find("expected"), 0) :]
            for name in sorted({file.name for file in files}, key=len, reverse=True):
                text = text.replace(name, "a file")
            text = redacted(text)
        return {"result": None, "seconds": 0.0, "warnings": [], "error": text}

    def _public(self, error: Exception) -> Exception:
        """The error; with --deidentify, one that says as much as the manifest does."""
        return error if self.deidentifier is None else ScanError(self._failure(error)["error"])

    def all(self) -> list[Path]:
        """Do this process's share.

        Raises:
            ScanError: the only scan failed, or some of several did.
        """
        if is_main_process():
            self._announce()
        if self.single and self.found.broken:
            raise self._public(self.found.broken[0].error)
        failed = strays = len(self._unplaced)  # files of no scan
        share = self.jobs[rank() :: world_size()]
        gone = self._attempt_all(share)
        done = [job for job in share if gone[job.record]]
        failed += len(share) - len(done)
        settle_manifest(self.out, self.jobs, self._unplaced)
        if world_size() == 1:
            remove_leftovers(self.out)
        wait_for_others()
        if failed:
            raise ScanError(
                f"{self.source}: expected to denoise {len(share) + strays} scans but {failed} failed; {self.out / MANIFEST} says why"
            )
        return [job.targets["denoised"] for job in done]

    def _attempt_all(self, share: Sequence[Job]) -> dict[Path, bool]:
        """Whether each went well, by its record.

        Independent runs into one folder share the work: what another one is at comes last, and is then found done.
        """
        gone: dict[Path, bool] = {}
        busy = []
        for job in share:
            with lock(job.lock) as mine:
                if mine is False:
                    busy.append(job)
                else:
                    gone[job.record] = self._attempt(job)
        for job in busy:
            with lock(job.lock, wait=True):
                gone[job.record] = self._attempt(job)
        return gone

    def _attempt(self, job: Job) -> bool:
        """Denoise one scan, or find it done; whether that went well. The only scan's error is the run's.

        Whatever happens to one scan of several, and to what is said and written of it, the others are done.
        """
        try:
            if is_finished(job, overwrite=self.asked.overwrite):
                self._say(f"{job.name}: kept from before")
            else:
                self._one(job)
        except Exception as error:
            if self.single:
                public = self._public(error)
                raise public from (None if public is not error else error.__cause__)
            self._failed(job, error)
            return False
        return True

    def _announce(self) -> None:
        if len(self.jobs) > 1:
            for job in self.jobs:
                self._say(f"found {job.name}, {len(job.source.files)} files")
        if self.found.passed_over:
            count = sum(map(len, self.found.passed_over.values()))  # others has names of files and values of tags
            self._say(f"passed over {self.found.others if self.deidentifier is None else f'{count} files'}")

    def _one(self, job: Job) -> None:
        """Denoise one scan; its results appear when all are complete."""
        if job.source.files in self._known:
            raise self._known[job.source.files]
        try:
            outcome, made, writer_clipped = self._made(job)
        finally:
            shutil.rmtree(job.work, ignore_errors=True)
        clipped = {kind: count for kind, count in writer_clipped.items() if count}
        record = write_record(job, "done", self._record(job, outcome) | {"clipped_voxels": clipped} | made)
        add_to_manifest(self.out, record)
        self._say(f"{job.name}: {outcome.slices} slices, {outcome.slices / max(outcome.seconds, 1e-9):.2f} slices/s")
        for warning in (*outcome.warnings, *(f"{count} voxels of {kind} clipped" for kind, count in clipped.items())):
            say(f"{job.name}: warning: {warning}", error=True)

    def _made(self, job: Job) -> tuple[Outcome, dict[str, Any], dict[str, int]]:
        shutil.rmtree(job.work, ignore_errors=True)
        scratch, made = job.work / "scratch", job.work / "made"
        for folder in (scratch, made):
            folder.mkdir(parents=True)
        started = time.perf_counter()
        before = digests(job)["source"]
        slices = open_slices(job.source, scratch)
        slices.problems += self._unreadable_beside(job.source)
        if slices.problems and self.asked.strict:
            raise ScanError(
                f"{job.source.path}: {slices.problems[0]}; leave out --strict to denoise each slice all the same"
            )
        warnings = look_at(slices, self.weights)
        if self.deidentifier is not None:  # they go into the result's header, too
            warnings = [redacted(warning) for warning in warnings]
        derivation = Derivation(
            self.weights.checksum, __version__, self.settings.strength, tuple(warnings), self.weights.precision
        )
        writer = open_results(
            slices,
            self.settings.kinds,
            made,
            derivation,
            compression=self.asked.compression,
            deidentifier=self.deidentifier,
        )
        with tqdm(total=slices.count, desc=shown(job.name), unit="slice", disable=not self._shows_progress()) as bar:
            outcome = denoise_slices(slices, writer, self.weights, self.settings, tick=bar.update)
        parts = writer.finish()
        outcome.warnings = warnings
        found = digests(job, parts)
        if found["source"] != before:
            raise ScanError(
                f"{job.source.path}: expected files that stay as they are but they were changed meanwhile; run again"
            )
        write_record(job, "unfinished", {})
        put_in_place(parts, job.targets)
        outcome.seconds = time.perf_counter() - started
        self._preview(job, outcome)
        return outcome, {"digests": found}, writer.clipped

    def _unreadable_beside(self, scan: ScanSource) -> list[str]:
        """Files in a series' folders that do not even say which series they are of: its own may be among them."""
        folders = {file.parent for file in scan.files}
        count = sum(item.scan is None and item.path.parent in folders for item in self.found.broken)
        if not count or scan.kind != "dicom":
            return []
        return [f"expected readable files beside it but got {count} that cannot be read and may hold slices of it"]

    def _say(self, text: str) -> None:
        if self.asked.progress:
            say(text)

    def _shows_progress(self) -> bool:
        return self.asked.progress and is_main_process() and sys.stderr.isatty()

    def _record(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        return {
            "result": {kind: target.relative_to(self.out).as_posix() for kind, target in job.targets.items()},
            "seconds": round(outcome.seconds, 3),
            "network_seconds": round(outcome.network_seconds, 3),
            "slices": outcome.slices,
            "warnings": outcome.warnings,
            "error": None,
            "weights": self.weights.checksum,
            "strength": self.settings.strength,
            "precision": self.weights.precision,
            "version": __version__,
        }

    def _failed(self, job: Job, error: BaseException) -> None:
        content = self._failure(error, job.source.files)
        say(f"{job.name}: error: {content['error']}", error=True)
        try:
            if not any(target.exists() for target in job.targets.values()):
                add_to_manifest(self.out, write_record(job, "failed", content))
                return
        except OSError as second:  # the same full disk, most often
            say(f"{job.name}: warning: {second}", error=True)
        self._unplaced.append(
            {"source": job.name, "state": "failed", **content}
        )  # results keep the record that they have

    def _preview(self, job: Job, outcome: Outcome) -> None:
        """The middle slice before and after, and what was removed."""
        path = self.asked.preview
        if path is None or outcome.middle is None:
            return
        if not self.single:
            path = path.with_name(f"{path.stem}_{job.source.name}{path.suffix}")
        before, after = outcome.middle
        window = WINDOWS["abdomen"]
        tiles = [Tile("input", before, window), Tile("denoised", after, window)]
        save_png(picture_panel([[*tiles, Tile("removed", before - after, DIFFERENCE_WINDOW)]]), path)


def tidy(out: Path) -> None:
    """Remove what is empty; another process's work is not."""
    for folder in (out / WORK, out):
        with suppress(OSError):
            folder.rmdir()
