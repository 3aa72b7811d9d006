"""A handler that kills one process of several in the middle of an epoch, the first time only."""

import os
import signal

from ignite.engine import Events


class KilledRank:
    def __init__(self, rank, iteration):
        self.rank, self.iteration = rank, iteration

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine):
        if int(os.environ["RANK"]) == self.rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
