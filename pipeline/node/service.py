"""The node as a whole: starting its parts in order, keeping them running through failures, and stopping without loss."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from ct_cncl.pipeline.node import commitment
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.complete import Watcher
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.deadline import cut_all
from ct_cncl.pipeline.node.errors import in_one_line
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.quiet_logs import set_up_logs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.receive import Receiver
from ct_cncl.pipeline.node.retention import Retention
from ct_cncl.pipeline.node.send import Sending
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool
from ct_cncl.pipeline.node.worker import worker_lock
from ct_cncl.pipeline.node.workers import Workers
from ct_cncl.transforms import __version__

logger = logging.getLogger("ct_cncl.node")
_SOON_S, _SELDOM_S, _AFTER_FAILURE_S = 0.25, 60.0, 2.0


class Node:
    """Everything that runs in the node's own process. The network runs in the processes of the workers.

    Args:
        settings: validated settings.

    Attributes:
        failing: for each part that is failing now, its error.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.spool, self.audit = Spool(settings.spool), Audit(settings.spool)
        self.failing: dict[str, str] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._locks: list[IO[str]] = []

    def start(self) -> None:
        """Lock the spool, clean up after a kill, and start all parts.

        Raises:
            NodeError: the spool is in use, on a network share or from a newer version, or the port is taken.
        """
        database = Database(self.settings.spool)
        self._locks.append(self.spool.lock())
        worker_lock(self.settings.spool, shared=False).close()
        self.jobs = Jobs(database)
        released = self.jobs.release()
        swept = self.spool.sweep(row[0] for row in database.rows("SELECT path FROM objects WHERE path IS NOT NULL"))
        if released or swept:
            logger.info(
                "recovered after a stop: %d jobs returned to the queue, %d unfinished files removed",
                len(released),
                swept,
            )
        self.receiver = Receiver(self.settings, self.spool, self.jobs, self.audit)
        self.watcher = Watcher(self.settings, self.jobs, self.receiver, self.audit)
        self.workers = Workers(self.settings, self.jobs)
        self.retention = Retention(self.settings, self.spool, self.jobs, self.audit)
        self.sendings = [
            Sending(self.settings, each, self.jobs, self.audit) for each in self.settings.destinations.values()
        ]
        self.receiver.start()
        self.audit.say("started", version=__version__)
        self._every("completion", self.watcher.look)
        self._every("workers", self.workers.look)
        for sending in self.sendings:
            self._every(f"sending to {sending.destination.name}", sending.look)
        commitment.forget_strangers(self.settings, database)
        for sender in {known.aet: known for known in self.settings.senders if known.commitment}.values():
            report = partial(commitment.report_all, self.settings, database, sender)
            self._every(f"commitment to {sender.aet}", report)
        self._every("retention", self.retention.look, pause=_SELDOM_S)
        if self.settings.page is not None:
            from ct_cncl.pipeline.node.page import serve

            self.page = serve(self)
        logger.info(
            "ct-cncl %s listens as %s on %s port %d",
            __version__,
            self.settings.aet,
            self.settings.host,
            self.receiver.port,
        )

    def _every(self, name: str, act: Callable[[], object], *, pause: float = _SOON_S) -> None:
        """Repeat a task in its own thread. An error is logged once, and the thread continues."""

        def run() -> None:
            while not self._stop.is_set():
                self._stop.wait(self._tried(name, act, pause))

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _tried(self, name: str, act: Callable[[], object], pause: float) -> float:
        """Run a task once, and return the seconds until the next run."""
        try:
            again = act() is True
        except Exception as error:  # a full disk, most likely: this part must still run once there is room again
            text = in_one_line(error)
            if self.failing.get(name) != text:
                logger.error("%s: %s", name, text)
            self.failing[name] = text
            return _AFTER_FAILURE_S
        self.failing.pop(name, None)
        return 0 if again else pause

    def stop(self) -> None:
        """Accept nothing new, give running work ``stop_s`` seconds to end, and leave the rest for the next start."""
        logger.info("stopping")
        until = time.monotonic() + self.settings.stop_s
        self.receiver.stop(min(5.0, self.settings.stop_s))
        self._stop.set()
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.1))
        cut_all()  # the process does not end while a thread waits for a peer
        self.workers.stop(max(until - time.monotonic(), 0.1))
        if self.settings.page is not None:
            self.page.should_exit = True
        with suppress(OSError):
            self.audit.say("stopped")
        for lock in self._locks:
            lock.close()
        self._locks = []
        logger.info("stopped")


def run_node(config: Path) -> None:
    """Run a node until SIGTERM or Ctrl-C.

    Raises:
        NodeError: the node cannot start.
    """
    settings = read_settings(config)
    set_up_logs()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o077)
    node = Node(settings)
    node.start()
    while not stop.wait(1.0):
        pass
    node.stop()
