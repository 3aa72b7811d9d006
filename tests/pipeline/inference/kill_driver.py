"""Runs ``denoise_scans`` in children that are killed at given points, then once to the end. Imports only once.

    python kill_driver.py SOURCE OUT WEIGHTS POINT...

Points are times after a child has written its first file, in units of what a series takes on this machine.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from ct_cncl.pipeline.inference.api import denoise_scans


def child(source: Path, out: Path, weights: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            denoise_scans(source, out, weights=weights, progress=False)
            code = 0
        finally:
            os._exit(code)
    return pid


def begun(out: Path, since: int) -> None:
    """Wait until a child writes files of its own."""
    while not any(changed > since for changed in _changes(out)):
        time.sleep(0.001)


def _changes(out: Path) -> list[int]:
    while True:
        with suppress(OSError):  # a file was moved away while it was looked at
            return [path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()]


def main() -> int:
    source, out, weights = map(Path, sys.argv[1:4])
    rehearsal = out.with_name("rehearsal")
    started = time.perf_counter()
    os.waitpid(child(source, rehearsal, weights), 0)
    each = (time.perf_counter() - started) / len(list(rehearsal.rglob("*_denoised")))
    shutil.rmtree(rehearsal)
    for seconds in (each * float(point) for point in sys.argv[4:]):
        since = time.time_ns()
        pid = child(source, out, weights)
        begun(out, since)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done = len(list(out.rglob("*_denoised")))
        print(f"killed {1000 * seconds:.0f} ms after its first file, with {done} results", flush=True)
    _, status = os.waitpid(child(source, out, weights), 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
