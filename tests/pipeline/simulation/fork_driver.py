"""Runs ``simulate_scans`` in children: one killed some time after it began, then two at once. Imports only once.

    python fork_driver.py SOURCE OUT SECONDS...

Each number of seconds is a child that is killed so long after it began. Prints what each of the last two said: "done", or its error.
"""

import os
import signal
import sys
import time
from pathlib import Path

from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.run import simulate_scans


def child(options: SimulateOptions) -> int:
    pid = os.fork()
    if pid == 0:
        text = "done"
        try:
            simulate_scans(options)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(1, f"{text}\n".encode())
        os._exit(0)
    return pid


def main() -> None:
    source, out = map(Path, sys.argv[1:3])
    options = SimulateOptions(source, out, 0.25, realizations=2, incident_photons=3e4, progress=False)
    for seconds in map(float, sys.argv[3:]):
        pid = child(options)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for pid in [child(options), child(options)]:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
