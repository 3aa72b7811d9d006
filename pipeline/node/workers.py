"""Starting, watching and restarting the worker processes. A job that repeatedly brings down its worker fails."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.settings import NodeSettings

logger = logging.getLogger("ct_cncl.node")
_MOST_DEATHS = 3
"""A job fails when this many workers have died on it."""


class Workers:
    """The processes that denoise.

    Args:
        settings: the node's settings.
        jobs: the queue.
    """

    def __init__(self, settings: NodeSettings, jobs: Jobs) -> None:
        self.settings, self.jobs = settings, jobs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths = 0

    @property
    def alive(self) -> int:
        """Number of processes that are running."""
        return sum(process.poll() is None for process in self._running.values())

    def look(self) -> None:
        """Start the processes that should be running and are not, and return the jobs of dead workers to the queue."""
        for number in range(self.settings.workers):
            name = f"worker{number + 1}"
            process = self._running.get(name)
            if process is not None and process.poll() is None:
                self._end_if_stuck(name, process)
                continue
            if process is not None:
                self.deaths += 1
                logger.error("%s ended (%s)", name, process.returncode)
                self._give_back(name, process.returncode)
            command = [
                sys.executable,
                "-m",
                "ct_cncl.pipeline.node.worker",
                str(Path(self.settings.file).absolute()),
                name,
            ]
            self._running[name] = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603

    def _end_if_stuck(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Kill a worker whose job takes longer than ``job_s``. The next look starts another, and counts a death for that job."""
        began = self.jobs.database.one("SELECT MIN(changed) FROM jobs WHERE state = 'denoising' AND claim = ?", name)
        if began is not None and time.time() - began > self.settings.limits.job_s:
            logger.error("%s was killed: its job took more than %g s", name, self.settings.limits.job_s)
            process.kill()
            process.wait()

    def _give_back(self, name: str, code: int) -> None:
        for number in self.jobs.release(name):
            job = self.jobs.get(number)
            if job.tries >= _MOST_DEATHS:
                self.jobs.move(
                    number, "complete", "failed",
                    error=f"expected the worker to survive, but it ended {job.tries} times on this job (the last time with {code}): out of memory, or stuck?",
                )  # fmt: skip

    def stop(self, seconds: float) -> None:
        """Give each worker ``seconds`` to finish its current job. Unfinished jobs go back to the queue."""
        for process in self._running.values():
            _tell(process)
        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until:
            time.sleep(0.05)
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running = {}
        self.jobs.release()


def _tell(process: subprocess.Popen[bytes]) -> None:
    """Send "stop" to a worker, which may have ended already."""
    with suppress(OSError):
        assert process.stdin is not None
        process.stdin.write(b"stop\n")
        process.stdin.flush()
