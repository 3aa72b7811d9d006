"""Denoise an archive of DICOM series with several processes that share it: slices per second by processes and threads.

    .venv/bin/python benchmarks/archive.py [--quick] [--json FILE] [--ways 1x1 1x2 2x1] [--series 8] [--slices 20]

A way is the number of processes, x, and the threads of each: 2x1 is two processes with one thread each. Each process runs `ct-cncl denoise ARCHIVE --out OUT`, and they
share the archive as described in docs/how-to/dicom.md. Start-up is included. The weights are those of the bundle.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import options, report
from denoise_series import write_series


def measured(archive: Path, out: Path, processes: int, threads: int) -> tuple[float, float]:
    """Seconds until all processes are done, and their CPU seconds in total."""
    command = [str(Path(sys.executable).with_name("ct-cncl")), "denoise", str(archive), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = [
        subprocess.Popen([*command, "--threads", str(threads)], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    codes = [process.wait() for process in running]
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(codes):
        raise SystemExit(f"ct-cncl denoise ended with exit codes {codes}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(ways: list[str], series: int, slices: int, side: int) -> list[dict[str, Any]]:
    """Slices per second of every way, and as a multiple of the first."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        archive, out = Path(work, "archive"), Path(work, "out")
        for number in range(series):
            write_series(archive / f"series{number}", slices, side, number=10 + number)
        for way in ways:
            processes, threads = (int(part) for part in way.split("x"))
            seconds, cpu = measured(archive, out, processes, threads)
            written = len(list(out.rglob("*.dcm")))
            if written != series * slices:
                raise SystemExit(f"expected {series * slices} slices but {written} were written")
            shutil.rmtree(out)
            rate = series * slices / seconds
            what = f"{processes} processes of {threads} threads: {rate:.2f} slices/s, {1000 * cpu / series / slices:.0f} ms of CPU a slice"
            results.append({"what": what, "ratio": rate / (results[0]["slices_per_second"] if results else rate)})
            results[-1]["slices_per_second"] = rate
    return results


def main() -> None:
    """Measure all ways, one after another."""
    parser = options(__doc__)
    parser.add_argument("--ways", nargs="+", default=["1x1", "1x2", "2x1"])
    parser.add_argument("--series", type=int, default=8)
    parser.add_argument("--slices", type=int, default=20)
    asked = parser.parse_args()
    size = (2, 1, 64) if asked.quick else (asked.series, asked.slices, 512)
    report(compared(asked.ways, *size), asked)


if __name__ == "__main__":
    main()
