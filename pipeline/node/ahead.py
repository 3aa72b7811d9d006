"""Denoising ahead of time: slices go through the network while the rest of their series is still arriving.

The network's output for a slice is stored under a digest of the input and the weights. The job looks it up later, and computes whatever
is not there. This works only on a CPU, for networks that see one slice at a time, and for rules that save nothing but the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ct_cncl.pipeline.inference.streaming import Settings, apply_network, batch_for
from ct_cncl.pipeline.node.facts import Facts
from ct_cncl.pipeline.node.jobs import Job, Jobs
from ct_cncl.pipeline.node.rules import decide
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.series import ScanError, ScanSource
from ct_cncl.transforms.series.slices import open_slices

if TYPE_CHECKING:
    from ct_cncl.pipeline.node.worker import Worker


class Remembering(nn.Module):
    """A network that stores its output for each slice and reuses it.

    Args:
        network: maps (B, 1, H, W) to (B, 1, H, W), in network units.
        folder: the job's folder, which holds the stored outputs. Nothing is stored while it does not exist.
        tag: identifies the weights and their precision.
    """

    def __init__(self, network: nn.Module, folder: Path, tag: str) -> None:
        super().__init__()
        self.network, self.folder, self.tag = network, folder, tag

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The network's output for ``image``, slice by slice, so that stored and new outputs are the same."""
        return torch.cat([self._one(image[k : k + 1]) for k in range(len(image))])

    def _one(self, image: torch.Tensor) -> torch.Tensor:
        digest = hashlib.sha256(self.tag.encode() + image.numpy().tobytes()).hexdigest()
        path = self.folder / f"{digest}.npy"
        if path.is_file():
            return torch.from_numpy(np.load(path, allow_pickle=False))
        made = self.network(image)
        if self.folder.is_dir():
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, made.float().numpy(), allow_pickle=False)
            part.replace(path)
        return made.float()


def folder_of(spool: Spool, job: int | str) -> Path:
    """The folder of the outputs computed ahead of time for a job."""
    return spool.work / "ahead" / str(job)


def forget(spool: Spool, job: int | str) -> None:
    """Remove the outputs computed ahead of time for a job."""
    folder = folder_of(spool, job)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # it still holds the folders of other jobs
        folder.parent.rmdir()


def remembering(weights: Weights, spool: Spool, job: Job) -> Weights:
    """The weights of a job, made to reuse outputs computed ahead of time; unchanged if they cannot be."""
    if not is_possible(weights, tuple(job.action.get("save") or ())):
        return weights
    tag = f"{weights.checksum}|{weights.precision}|"
    return replace(weights, network=Remembering(weights.network, folder_of(spool, job.id), tag).eval())


def is_possible(weights: Weights, save: tuple[str, ...]) -> bool:
    """Whether slices can go through the network one by one, in any order."""
    return weights.slices == 1 and weights.device.type == "cpu" and not weights.own_threads and not save


class Ahead:
    """What a worker does while no job is complete. Call :meth:`look` repeatedly.

    Args:
        worker: the worker, whose weights are used.
        number: the worker's number, from 0. No two workers look at the same job.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker, self.number = worker, number
        self.settings: NodeSettings = worker.settings
        self.jobs: Jobs = worker.jobs
        self.spool: Spool = worker.spool
        self._seen: dict[int, set[str]] = {}
        self._failed: set[int] = set()

    def look(self) -> bool:
        """Put a few slices through the network, and return whether there were any."""
        waiting = self.jobs.all("received")
        self._tidy()
        own = [job for job in reversed(waiting) if job.id % max(self.settings.workers, 1) == self.number]
        self._seen = {job.id: self._seen.get(job.id, set()) for job in own}
        self._failed &= set(self._seen)
        return any(self._some_of(job) for job in own if job.id not in self._failed)

    def _some_of(self, job: Job) -> bool:
        """Put one batch of a job's slices through the network, and return whether the job had a whole batch.

        If this fails, the job is left alone: denoising it will report the error, and other jobs need not wait.
        """
        try:
            rows, asked = self._next(job)
            if rows:
                self._make(rows, asked)
        except (ValueError, RuntimeError, OSError):
            self._failed.add(job.id)
            return False
        return bool(rows)

    def _next(self, job: Job) -> tuple[list[sqlite3.Row], Job]:
        """The job's next batch of new slices, and the job with its action. The batch is empty if fewer slices have come."""
        seen = self._seen[job.id]
        rows = [row for row in self.jobs.members(job.id) if row["uid"] not in seen and row["path"]]
        if not rows:
            return [], job
        action = decide(self.settings.rules, Facts.from_plain(json.loads(rows[0]["facts"])), job.sender).action
        asked = replace(job, action=action.plain())
        if action.do != "denoise" or action.strength == 0:
            seen.update(row["uid"] for row in rows)
            return [], asked
        weights = self.worker.opened(asked)
        size = batch_for(weights, (1, 1), Settings())
        if not is_possible(weights, action.save) or len(rows) < size:
            return [], asked
        seen.update(row["uid"] for row in rows[:size])
        return rows[:size], asked

    def _make(self, rows: list[sqlite3.Row], asked: Job) -> None:
        folder_of(self.spool, asked.id).mkdir(parents=True, exist_ok=True)
        scratch = self.spool.work / "ahead"
        read = [_slice(self.spool.folder / row["path"], scratch) for row in rows]
        whole = [hu for hu in read if hu is not None]
        if len(whole) == len(rows) and len({hu.shape for hu in whole}) == 1:  # the same batch size as in the job
            weights = remembering(self.worker.opened(asked), self.spool, asked)
            apply_network(weights, np.stack(whole)[:, None], Settings())

    def _tidy(self) -> None:
        """Remove the outputs of jobs that will not be denoised any more."""
        folder = self.spool.work / "ahead"
        for path in folder.iterdir() if folder.is_dir() else ():
            state = self.jobs.database.one("SELECT state FROM jobs WHERE id = ?", path.name)
            if state not in ("received", "complete", "denoising"):
                forget(self.spool, path.name)


def _slice(path: Path, scratch: Path) -> np.ndarray | None:
    """A one-slice file's HU, (columns, rows), oriented as in its series; None if the file is not one readable slice."""
    try:
        slices = open_slices(ScanSource("dicom", path, (path,), path.stem), scratch)
        return slices.read(0).hu if slices.count == 1 else None
    except ScanError:  # the job will report it
        return None
