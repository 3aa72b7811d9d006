"""Ahead of time: slices go through the network while the rest of their series is still arriving.

What the network made of a slice is kept under a digest of what went in and of the weights, so that the job finds it later; what it does
not find is computed as ever. Only for networks that see one slice at a time, on a CPU, where the result alone is wanted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
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

    def look(self) -> bool:
        """Put a few slices through the network; whether there were any."""
        waiting = self.jobs.all("received")
        self._tidy()
        own = [job for job in reversed(waiting) if job.id % max(self.settings.workers, 1) == self.number]
        self._seen = {job.id: self._seen.get(job.id, set()) for job in own}
        return any(self._some_of(job) for job in own)

    def _some_of(self, job: Job) -> bool:
        seen = self._seen[job.id]
        rows = [row for row in self.jobs.members(job.id) if row["uid"] not in seen and row["path"]]
        if not rows:
            return False
        facts = Facts.from_plain(json.loads(rows[0]["facts"]))
        action = decide(self.settings.rules, facts, job.sender).action
        if action.do != "denoise" or action.strength == 0:
            seen.update(row["uid"] for row in rows)
            return False
        asked = replace(job, action=action.plain())
        weights = self.worker.opened(asked)
        size = batch_for(weights, (1, 1), Settings())
        if not is_possible(weights, action.save) or len(rows) < size:
            return False
        seen.update(row["uid"] for row in rows[:size])
        folder_of(self.spool, job.id).mkdir(parents=True, exist_ok=True)
        scratch = self.spool.work / "ahead"
        read = [_slice(self.spool.folder / row["path"], scratch) for row in rows[:size]]
        whole = [hu for hu in read if hu is not None]
        if len(whole) == size and len({hu.shape for hu in whole}) == 1:  # as in the job: this many at once
            apply_network(remembering(weights, self.spool, asked), np.stack(whole)[:, None], Settings())
        return True

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
