"""Seconds of a node from the last slice received to the last result delivered, and the memory of all its processes.

Example:
    python benchmarks/node_throughput.py --slices 300 --precision fp32 bf16
    python benchmarks/node_throughput.py --slices 1000 --associations 4
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import pydicom
from tiny_node import Destination, Running, config, running, until

from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.demo_series import write_phantom_series
from ct_cncl.pipeline.node.settings import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
STEPS = ("received", "denoised", "delivered")
"""Events of the node's audit log: the series is complete, its results are written, the destination has them."""


def main() -> None:
    """Measure each precision, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--associations", type=int, default=1, help="number of associations that send the slices at the same time"
    )
    parser.add_argument("--quiet", type=float, default=10.0, help="the node's complete.quiet_s")
    parser.add_argument("--late", action="store_true", help="begin to denoise only when the series is complete")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = series(Path(name) / "in", asked.slices)
        for precision in asked.precision:
            print(measured(Path(name) / precision, files, precision, asked), flush=True)


def series(folder: Path, slices: int) -> list[Path]:
    """Write a series that repeats eight slices of a phantom, each at its own position."""
    made = write_phantom_series(folder / "phantom", min(slices, 8))
    files = []
    for number in range(slices):
        dataset = pydicom.dcmread(made[number % len(made)])
        uid = f"{dataset.SeriesInstanceUID[:50]}.{number + 1}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.InstanceNumber, dataset.ImagePositionPatient = number + 1, [0, 0, number]
        pixels = dataset.pixel_array.copy()
        pixels[0, 0] = number  # no two slices are the same
        dataset.PixelData = pixels.tobytes()
        files.append(folder / f"{number:04d}.dcm")
        dataset.save_as(files[-1])
    return files


def measured(folder: Path, files: list[Path], precision: str, asked: argparse.Namespace) -> str:
    """Run the node once and describe the run in one line."""
    rule = {"name": "all", "send": "pacs", "precision": precision} | (
        {"weights": str(asked.weights.absolute())} if asked.weights else {}
    )
    with Destination() as there:
        path = config(
            folder,
            there,
            "",
            rules=[rule],
            threads=asked.threads,
            complete={"quiet_s": asked.quiet, "open_s": 60},
            ahead=not asked.late,
        )
        os.environ["OMP_NUM_THREADS"] = str(asked.threads)
        with running(path) as node:
            watch = Memory(node.process.pid)
            began = time.monotonic()
            with ThreadPoolExecutor(asked.associations) as pool:
                list(
                    pool.map(
                        push, (files[k :: asked.associations] for k in range(asked.associations)), repeat(node.port)
                    )
                )
            last, last_clock = time.monotonic(), time.time()
            assert until(lambda: node.states() == ["done"], 1200), node.log.read_text()
            end = time.monotonic()
            watch.stop()
            busy = sum(map(_cpu_seconds, [node.process.pid, *_children(node.process.pid)]))
            steps = ", ".join(f"{step} {_seconds(node, step) - last_clock:.1f}" for step in STEPS)
        assert len(there.times) == len(files)
    load = os.getloadavg()[0]
    return (
        f"{len(files)} slices over {asked.associations} associations, {precision}, {asked.threads} threads, quiet {asked.quiet:g} s{', late' if asked.late else ''}: in {last - began:.1f} s, out "
        f"{end - last:.1f} s after the last slice ({steps}); {watch.peak / 2**20:.0f} MiB at most (proportional set size of node and workers); {busy:.0f} s of CPU; load {load:.1f}"
    )


def _seconds(node: Running, step: str) -> float:
    """When a step was logged, in seconds since 1970."""
    noted = next(entry["time"] for entry in node.audit() if entry["event"] == step)
    return datetime.fromisoformat(noted).timestamp()


def push(files: list[Path], port: int) -> None:
    """Send files by C-STORE over one association."""
    from pynetdicom import AE

    ae = AE("SCANNER")
    ae.add_requested_context(CT, "1.2.840.10008.1.2.1")
    with called(ae, Peer("NODE", "127.0.0.1", port), within_s=7200) as assoc:
        for file in files:
            assert assoc.send_c_store(pydicom.dcmread(file)).Status == 0


class Memory:
    """Peak proportional set size of a process and its children, sampled four times a second."""

    def __init__(self, process: int) -> None:
        self.process, self.peak, self._on = process, 0, True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._on:
            self.peak = max(self.peak, sum(map(_size, [self.process, *_children(self.process)])))
            time.sleep(0.25)

    def stop(self) -> None:
        """Stop sampling."""
        self._on = False
        self._thread.join()


def _children(process: int) -> list[int]:
    texts = map(_text, Path(f"/proc/{process}/task").glob("*/children"))
    return [int(word) for text in texts for word in text.split()]


def _text(path: Path) -> str:
    """Text of a file in /proc; empty if its thread or process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _cpu_seconds(process: int) -> float:
    """User and system time of a running process, seconds."""
    fields = _text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _size(process: int) -> int:
    lines = _text(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
