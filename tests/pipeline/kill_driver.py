"""Runs ``denoise_scans`` in children that are killed after given seconds, then once to the end. Imports only once.

python kill_driver.py SOURCE OUT WEIGHTS SECONDS...
"""

import os
import signal
import sys
import time
from pathlib import Path

from ct_cncl.pipeline.inference import denoise_scans


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


def main() -> int:
    source, out, weights = map(Path, sys.argv[1:4])
    for seconds in map(float, sys.argv[4:]):
        pid = child(source, out, weights)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done = len(list(out.rglob("*_denoised"))) if out.is_dir() else 0
        print("killed after", seconds, "with", done, "results", flush=True)
    _, status = os.waitpid(child(source, out, weights), 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
