"""A node that is killed at chosen steps, again and again: ``python node_lives.py CONFIG``.

Reads a number a line: this life ends by SIGKILL at its so manyth step; at 0 it lives until SIGTERM. A step is a moment just before or just
after something becomes permanent: a commit of the queue, a file that gets its name. Everything is imported once and each life is a fork, with
the worker as a thread, so that a life takes a tenth of a second and not five. Writes each life's exit status.
"""

import contextlib
import itertools
import os
import pathlib
import signal
import sys
import threading
import time

import torch

from ct_cncl.pipeline.node import make, page, service, workers  # noqa: F401
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.quiet_logs import set_up_logs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.worker import Worker


class ThreadWorkers:
    """Replaces the worker processes by one thread, which dies with the node."""

    deaths = 0

    def __init__(self, settings, jobs):
        self.settings, self.worker = settings, None

    @property
    def alive(self):
        return int(self.worker is not None)

    def look(self):
        if self.worker is None:
            self.worker = Worker(self.settings, "worker1")
            threading.Thread(target=self.worker.run, daemon=True).start()

    def stop(self, seconds):
        self.worker.stopping.set()


def mark_steps(last):
    """Die at the step of this number."""
    steps, lock = itertools.count(1), threading.Lock()

    def step(what):
        with lock:
            if next(steps) == last:
                os.write(2, f"killed {what} in {caller()}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    def caller():
        """The function of this project that was running."""
        frame = sys._getframe(2)
        while frame.f_code.co_name in ("step", "marked_change", "marked_replace", "__exit__"):
            frame = frame.f_back
        return frame.f_code.co_name

    change, replace = Database.change, pathlib.Path.replace

    @contextlib.contextmanager
    def marked_change(self, **options):
        with change(self, **options) as connection:
            before = connection.total_changes
            yield connection
            changed = connection.total_changes != before
            if changed:
                step("before a commit")
        if changed:
            step("after a commit")

    def marked_replace(self, target):
        step("before a rename")
        done = replace(self, target)
        step("after a rename")
        return done

    Database.change, pathlib.Path.replace = marked_change, marked_replace


def live(config, last):
    set_up_logs()
    torch.set_num_threads(1)
    mark_steps(last)
    service.Workers = ThreadWorkers
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    node = service.Node(read_settings(pathlib.Path(config)))
    node.start()
    while not stop.wait(0.2):
        pass
    node.stop()


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(sys.argv[1], int(line))
                os._exit(0)
            finally:
                os._exit(1)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
