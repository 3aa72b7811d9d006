"""A worker: a separate process that takes jobs from the queue and denoises them. It ends when the node does.

The node starts it as ``python -m ct_cncl.pipeline.node.worker CONFIG NAME``. Its standard input is a pipe from the node: the line "stop"
asks it to end after the current job, and the pipe closes when the node dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.errors import in_one_line
from ct_cncl.pipeline.node.jobs import Job, Jobs
from ct_cncl.pipeline.node.quiet_logs import set_up_logs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool, is_full

if TYPE_CHECKING:  # torch takes seconds to import, so it is imported only when the worker runs
    from ct_cncl.pipeline.node.ahead import Ahead
    from ct_cncl.pipeline.weights.load import Weights

logger = logging.getLogger("ct_cncl.node")
_POLL_S = 0.2


class Worker:
    """Denoises jobs one by one.

    Args:
        settings: the node's settings.
        name: "worker1", "worker2" and so on. It marks the worker's claims and determines its device.
    """

    def __init__(self, settings: NodeSettings, name: str) -> None:
        self.settings, self.name = settings, name
        self.number = int(name.removeprefix("worker")) - 1
        self.spool, self.jobs = Spool(settings.spool), Jobs(Database(settings.spool))
        self.audit = Audit(settings.spool)
        self.stopping = threading.Event()
        self._ahead_of_time: Ahead | None = None
        self._weights: tuple[tuple[object, ...], Weights] | None = None

    def run(self) -> None:
        """Work until told to stop."""
        import ct_cncl.pipeline.node.make  # noqa: F401  import torch, which takes seconds, before the first job comes

        while not self.stopping.is_set():
            self.stopping.wait(self._turn())

    def _turn(self) -> float:
        """Do one piece of work if there is any, and return the seconds until the next look."""
        try:
            job = self.jobs.claim(self.name)
            if job is not None:
                self.one(job)
                return 0
            return 0 if self._ahead() else _POLL_S
        except (sqlite3.Error, OSError) as error:  # a full disk, most likely: try again later
            logger.error("worker %s: %s", self.name, in_one_line(error))
            self._free_claims()
            return self.settings.retry.first_s

    def _ahead(self) -> bool:
        """Start on series that are still arriving, and return whether there was anything to do."""
        if not self.settings.ahead or not self.jobs.all("received", most=1):
            return False
        from ct_cncl.pipeline.node.ahead import Ahead

        if self._ahead_of_time is None:
            self._ahead_of_time = Ahead(self, self.number)
        return self._ahead_of_time.look()

    def _free_claims(self) -> None:
        try:
            self.jobs.release(self.name)
        except sqlite3.Error:
            return  # the claims are freed at a later turn, once there is room again

    def one(self, job: Job) -> None:
        """Denoise one job, or note why that failed. Disk and memory errors are tried again; others need a person.

        Raises:
            OSError, sqlite3.Error: the outcome of the job cannot be written.
        """
        from ct_cncl.pipeline.node.ahead import forget, remembering
        from ct_cncl.pipeline.node.make import make

        logger.info("job %d: denoising", job.id)
        try:
            weights = remembering(self.opened(job), self.spool, job) if self.settings.ahead else self.opened(job)
            outcome, warnings = make(job, self.jobs.members(job.id), self.spool, weights)
            forget(self.spool, job.id)
        except Exception as error:
            self._failed(job, error)
            return
        destinations = () if job.shadow else tuple(job.action.get("send") or ())
        results = sorted({entry["series"] for entry in outcome["files"]})
        self.audit.say(
            "denoised", job=job.id, study=job.study, series=job.series, results=results, weights=outcome["weights"],
            strength=job.action.get("strength"), target_dose=job.action.get("target_dose"), precision=job.action.get("precision"),
            rule=job.rule, seconds=outcome["seconds"], shadow=job.shadow,
        )  # fmt: skip
        self.jobs.finish(job.id, outcome, [*job.warnings, *warnings], destinations)
        logger.info("job %d: denoised in %.1f s", job.id, outcome["seconds"])

    def opened(self, job: Job) -> Weights:
        """Open the weights of a job's rule, or reuse those of the last job.

        Raises:
            CheckpointError, ConfigError, ValueError: the weights cannot be used.
        """
        import torch

        from ct_cncl.pipeline.inference.api import chosen_device
        from ct_cncl.pipeline.inference.streaming import check_save
        from ct_cncl.pipeline.node.make import options_of
        from ct_cncl.pipeline.weights.load import open_weights

        options = options_of(job.action)
        key = (options.weights, options.precision)
        if self._weights is None or self._weights[0] != key:
            if self.settings.threads is not None:
                torch.set_num_threads(self.settings.threads)
            device = chosen_device(self.settings.devices[self.number % len(self.settings.devices)])
            self._weights = (key, open_weights(options.weights, device, precision=options.precision))
        check_save(self._weights[1], options.settings(self._weights[1].trained_on))
        return self._weights[1]

    def _failed(self, job: Job, error: Exception) -> None:
        text = in_one_line(error)
        again = (isinstance(error, (OSError, MemoryError)) or is_full(error)) and job.tries < self.settings.retry.tries
        if again:
            pause = min(self.settings.retry.first_s * 2 ** min(job.tries - 1, 20), self.settings.retry.longest_s)
            self.jobs.move(job.id, "denoising", "complete", next_try=time.time() + pause, error=text, claim=None)
        else:
            self.audit.say("failed", job=job.id, study=job.study, series=job.series, step="denoise")
            self.jobs.move(job.id, "denoising", "failed", error=text, claim=None)
        logger.error("job %d: %s%s", job.id, text, "; will be tried again" if again else "")


def _follow(worker: Worker) -> None:
    """End at once if the node dies, or after the current job if the node says "stop"."""
    for line in sys.stdin:
        if line.strip() == "stop":
            worker.stopping.set()
    os._exit(1)


def main(config: str, name: str) -> None:
    """Run the worker called ``name`` with the configuration file ``config``."""
    set_up_logs()
    settings = read_settings(Path(config))
    held = worker_lock(settings.spool, shared=True)  # a starting node waits until the workers of a killed one are gone
    worker = Worker(settings, name)
    threading.Thread(target=_follow, args=(worker,), daemon=True).start()
    try:
        worker.run()
    except Exception as error:  # for example an upgrade while the node runs: the next process loads the new files
        logger.error("%s cannot continue: %s", name, in_one_line(error))
        sys.exit(1)
    finally:
        held.close()


def worker_lock(spool: Path, *, shared: bool) -> IO[str]:
    """Take the lock that workers share and that a starting node holds alone. It is held for as long as the returned file is open."""
    stream = (spool / "workers.lock").open("a")
    fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    return stream


if __name__ == "__main__":
    main(*sys.argv[1:])
    logging.shutdown()
    os._exit(0)  # nothing is left to write, and torch's teardown can take longer than a stop may on a busy machine
