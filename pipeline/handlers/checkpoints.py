"""Checkpoints of a run: the last state, to resume from, and the best network, to use.

This does not use MONAI's CheckpointSaver. That keeps no state of random generators, so it cannot resume exactly, and it writes
in place (``atomic=False``), so that a process killed while saving would lose the only checkpoint. Here, files are written under
another name first.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import (
    AVERAGE_KEY,
    BEST,
    LAST,
    NETWORK_KEY,
    first_line,
    load_file,
    load_strictly,
    load_weights,
)
from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.transforms.common.files import replacing

if TYPE_CHECKING:  # code that only loads weights need not wait for Ignite
    from ignite.engine import Engine


logger = logging.getLogger(__name__)


def save_file(content: Mapping[str, Any], path: Path) -> None:
    """Call ``torch.save``, but raise the system's error: torch's own error only names a line of its source.

    Raises:
        OSError: the disk is full, over quota or faulty.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        with path.open("ab") as stream:  # on a full disk this fails as well, with the system's error
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
        raise OSError(errno.EIO, f"torch could not write it ({first_line(error)})") from error


def resuming(folder: str | Path, resume: bool | str) -> bool:
    """Whether a training run resumes the one in ``folder``.

    After torchrun has restarted the processes (``--max-restarts``), False means "auto", since the first attempt has left a run.

    Args:
        folder: folder of the run.
        resume: True, False, or "auto", which resumes if the folder holds a run.

    Raises:
        ValueError: ``resume`` is anything else.
    """
    if resume not in (True, False, "auto"):
        raise ValueError(f"Expected resume to be true, false or auto, but got {resume!r}.")
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if resume is True or not (resume == "auto" or restarted):
        return bool(resume)
    return (Path(folder) / LAST).is_file()


def starting_weights(
    network: nn.Module, path: str | Path | None, *, folder: str | Path = ".", resume: bool | str = False
) -> None:
    """Start a training run from the weights of an earlier one; a resumed run keeps its own weights.

    Args:
        network: changed in place.
        path: checkpoint of the earlier run, or None.
        folder: folder of the run that starts.
        resume: see :func:`resuming`.

    Raises:
        CheckpointError: the checkpoint is unreadable or of another network.
    """
    if path is not None and not resuming(folder, resume):
        load_weights(network, path)
        logger.info("Starting from the weights in %s.", path)


class RandomState:
    """State of every global random generator, as tensors that load with ``weights_only=True``."""

    def state_dict(self) -> dict[str, Any]:
        """States of torch (CPU and CUDA), numpy and Python."""
        name, keys, position, has_gauss, gauss = np.random.get_state()
        version, internal, python_gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
            "python": [version, torch.tensor(internal), python_gauss],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states; those of CUDA only if the number of devices is the same."""
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        name, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        version, internal, python_gauss = state["python"]
        random.setstate((version, tuple(internal.tolist()), python_gauss))


class Checkpoints:
    """Saves ``last.pt`` after each epoch and ``best.pt`` when the key metric improves; resumes from ``last.pt``.

    Attach it after the validation and learning-rate handlers, so that what it saves is the state at the epoch's end.

    Args:
        folder: folder of the run.
        objects: objects to save by name, all with ``state_dict`` and ``load_state_dict``; "network_def" is the generator. The
            random generators, the engine with its gradient scalers and the best score so far are added. Objects that are None
            are left out.
        evaluator: evaluator whose key metric decides which epoch is best (greater is better); None saves no ``best.pt``.
        resume: load ``last.pt`` when training starts; see :func:`resuming`.
        save: write files; None writes them in the main process only.
        interval: epochs between two ``last.pt``.
        shipped: the network that is validated and goes into ``best.pt``; None takes the engine's average ("ema"), or the
            generator if there is none.

    Raises:
        CheckpointError: the folder holds a run and ``resume`` is off, or it holds none and ``resume`` is on.
        ValueError: the generator is not among the objects.
    """

    def __init__(
        self,
        folder: str | Path,
        objects: Mapping[str, Any],
        *,
        evaluator: Engine | None = None,
        resume: bool | str = False,
        save: bool | None = None,
        interval: int = 1,
        shipped: nn.Module | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.objects = {name: thing for name, thing in objects.items() if thing is not None} | {"random": RandomState()}
        if NETWORK_KEY not in self.objects:
            raise ValueError(f"Expected {NETWORK_KEY!r} among the objects to save, but got {sorted(self.objects)}.")
        self.shipped = shipped
        self.evaluator = evaluator
        self.resume = resuming(folder, resume)
        self.save = is_main_process() if save is None else save
        self.interval = interval
        self.best_score = -math.inf
        self.best_epoch = 0
        last = self.folder / LAST
        if last.exists() and not self.resume:
            raise CheckpointError(
                f"Expected a folder without a run in {self.folder}, but it holds {LAST}. Resume that run (--resume), or "
                "name another output folder."
            )
        if self.resume and not last.exists():
            raise CheckpointError(
                f"Expected a run to resume in {self.folder}, but it holds no {LAST}. Name the run's folder, or start a new run "
                "without --resume."
            )

    def attach(self, engine: Engine) -> None:
        """Resume at the start and save after each epoch; the engine's own state (``resumable``) is added to the objects."""
        from ignite.engine import Events

        self.objects |= getattr(engine, "resumable", {})
        if self.shipped is None:
            shipped = getattr(self.objects.get(AVERAGE_KEY), "shipped", None)
            self.shipped = self.objects[NETWORK_KEY] if shipped is None else shipped()
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def load(self, engine: Engine) -> None:
        """Restore the state of every object from ``last.pt``.

        Raises:
            CheckpointError: ``last.pt`` is unreadable or of another configuration.
        """
        path = self.folder / LAST
        content = load_file(path)
        if set(self.objects) - set(content):
            raise CheckpointError(
                f"Expected {path} to hold {', '.join(sorted(self.objects))}, but {', '.join(sorted(set(self.objects) - set(content)))} "
                "is missing. Use the config and overlays with which it was trained."
            )
        max_epochs = engine.state.max_epochs
        for name, thing in self.objects.items():
            load_strictly(thing, content[name], f"{name} in {path}")
        engine.state.max_epochs = max_epochs
        self.best_score, self.best_epoch = content["best"]
        logger.info("Resumed from %s after epoch %d.", path, engine.state.epoch)

    def epoch_completed(self, engine: Engine) -> None:
        """Update the best score, and write the checkpoints that are due."""
        state, epoch = engine.state, engine.state.epoch
        improved = self._improved(epoch)
        if improved and self.save:
            with replacing(self.folder / BEST) as temporary:
                assert self.shipped is not None  # set in attach()
                network = {
                    NETWORK_KEY: self.shipped.state_dict(),
                    "epoch": epoch,
                    "score": self.best_score,
                }
                save_file(network, temporary)
        if self.save and (epoch % self.interval == 0 or epoch == state.max_epochs):
            content = {name: thing.state_dict() for name, thing in self.objects.items()}
            content["best"] = [self.best_score, self.best_epoch]
            with replacing(self.folder / LAST) as temporary:
                save_file(content, temporary)

    def _improved(self, epoch: int) -> bool:
        if self.evaluator is None or not self.evaluator.state.metrics:
            return False
        name = self.evaluator.state.key_metric_name
        score = float(self.evaluator.state.metrics[name])
        if not score > self.best_score:
            return False
        self.best_score, self.best_epoch = score, epoch
        if is_main_process():
            shown = f"{score:.2f} dB" if name == "psnr" else f"{score:.4g}"
            logger.info("Best %s so far: %s, epoch %d.", name.upper(), shown, epoch)
        return True
