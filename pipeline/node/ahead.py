"""Ahead of time: slices go through the network while the rest of their series is still arriving.

What the network made of a slice is kept under a digest of what went in and of the weights, so that the job finds it later; what it does
not find is computed as ever. Only for networks that see one slice at a time, on a CPU, where the result alone is wanted.
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
    """A network that looks up what it made before, slice by slice.

    Args:
        network: (B, 1, H, W) to (B, 1, H, W), network units.
        folder: of the job, where images lie.
        tag: of the weights and their precision.
    """

    def __init__(self, network: nn.Module, folder: Path, tag: str) -> None:
        super().__init__()
        self.network, self.folder, self.tag = network, folder, tag

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The network's output of ``image``, each slice by itself: the same whether it was made now or before."""
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
    """Where what was made ahead of time of a job lies."""
    return spool.work / "ahead" / str(job)


def forget(spool: Spool, job: int | str) -> None:
    """Remove what was made ahead of time of a job."""
    folder = folder_of(spool, job)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others' work is there
        folder.parent.rmdir()


def remembering(weights: Weights, spool: Spool, job: Job) -> Weights:
    """The weights of a job, with what was made ahead of time; as they are, where nothing can be."""
    if not is_possible(weights, tuple(job.action.get("save") or ())):
        return weights
    tag = f"{weights.checksum}|{weights.precision}|"
    return replace(weights, network=Remembering(weights.network, folder_of(spool, job.id), tag).eval())


def is_possible(weights: Weights, save: tuple[str, ...]) -> bool:
    """Whether slices can go through the network one by one and in any order."""
    return weights.slices == 1 and weights.device.type == "cpu" and not weights.own_threads and not save


class Ahead:
    """What a worker does while no job is complete; call :meth:`look` again and again.

    Args:
        worker: whose weights are used.
        number: of the worker, from 0; each looks at jobs of its own.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker, self.number = worker, number
        self.settings: NodeSettings = worker.settings
        self.jobs: Jobs = worker.jobs
        self.spool: Spool = worker.spool
        self._seen: dict[int, set[str]] = {}
        self._failed: set[int] = set()

    def look(self) -> bool:
        """Put a few slices through the network; whether there were any."""
        waiting = self.jobs.all("received")
        self._tidy()
        own = [job for job in reversed(waiting) if job.id % max(self.settings.workers, 1) == self.number]
        self._seen = {job.id: self._seen.get(job.id, set()) for job in own}
        self._failed &= set(self._seen)
        return any(self._some_of(job) for job in own if job.id not in self._failed)

    def _some_of(self, job: Job) -> bool:
        """Put as many slices of a job through the network as go at once; whether there were that many.

        A job of which this fails is left alone: it will say what is wrong in its own time, and the others do not wait for it.
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
        """Slices that have not been looked at, as many as go at once, and the job with its action; none where there are fewer."""
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
        if len(whole) == len(rows) and len({hu.shape for hu in whole}) == 1:  # as in the job: this many at once
            weights = remembering(self.worker.opened(asked), self.spool, asked)
            apply_network(weights, np.stack(whole)[:, None], Settings())

    def _tidy(self) -> None:
        """Forget what was made of jobs that nobody will make any more."""
        folder = self.spool.work / "ahead"
        for path in folder.iterdir() if folder.is_dir() else ():
            state = self.jobs.database.one("SELECT state FROM jobs WHERE id = ?", path.name)
            if state not in ("received", "complete", "denoising"):
                forget(self.spool, path.name)


def _slice(path: Path, scratch: Path) -> np.ndarray | None:
    """(columns, rows) HU of a file with one slice, turned as within its series; None where it is no such file."""
    try:
        slices = open_slices(ScanSource("dicom", path, (path,), path.stem), scratch)
        return slices.read(0).hu if slices.count == 1 else None
    except ScanError:  # the job will say so
        return None
