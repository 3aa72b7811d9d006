"""Time of a training step and of a slice, alone and next to one busy core, for several ways in which threads wait for each other.

    .venv/bin/python benchmarks/beside.py [--quick] [--json FILE] [--cases 1 2] [--network cncl_fast]

Each case runs in a fresh process (libgomp reads its variables once, when it is loaded), first alone, then next to a process that spins.
A step is a forward and backward pass on 8 patches of 96 x 96; a slice has 512 x 512 pixels. Times are means over several seconds: next
to a busy core, one call takes what another does not, and the fastest of a few says little. The figures are valid only on an otherwise
idle machine and at the usual priority (``nice`` and ``sched_autogroup_enabled`` change them), so the load before the run is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import network, options, report

from ct_cncl.pipeline.networks import BranchOutputs

WAITS = {
    "libgomp's own": {},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=300": {"GOMP_SPINCOUNT": "300"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""How a thread waits for the others: environment variables of libgomp."""


def mean_seconds(work: Callable[[], Any], *, lasting: float) -> float:
    """Mean time of a call, over ``lasting`` seconds of calls after two to warm up."""
    work()
    work()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < lasting:
        work()
        calls += 1
    return (time.perf_counter() - started) / calls


def measure(name: str, *, quick: bool) -> dict[str, float]:
    """Seconds of a training step and of a slice, in this process."""
    patches, side, lasting = (torch.rand(2, 1, 32, 32), 64, 0.1) if quick else (torch.rand(8, 1, 96, 96), 512, 8.0)
    training = BranchOutputs(network(name)).train()

    def step() -> None:
        sum(branch.mean() for branch in training(patches)).backward()  # type: ignore[union-attr]

    model, image = network(name).eval(), torch.rand(1, 1, side, side)
    with torch.inference_mode():
        a_slice = mean_seconds(lambda: model(image), lasting=lasting)
    return {"step": mean_seconds(step, lasting=lasting), "slice": a_slice}


def measured(name: str, threads: int, wait: dict[str, str], *, beside: bool, quick: bool) -> dict[str, float]:
    """Run :func:`measure` in a fresh process, alone or next to one that spins."""
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= wait | {"OMP_NUM_THREADS": str(threads)}
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
    try:
        command = [sys.executable, __file__, "--measure", "--network", name, *(["--quick"] if quick else [])]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    finally:
        if spinning is not None:
            spinning.kill()
            spinning.wait()
    return json.loads(done.stdout.splitlines()[-1])


def compared(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """How many times slower each is next to a busy core, by threads and way of waiting."""
    results = []
    for threads in asked.cases:
        for title, wait in WAITS.items() if threads > 1 and not asked.quick else [next(iter(WAITS.items()))]:
            alone, beside = (
                measured(asked.network, threads, wait, beside=beside, quick=asked.quick) for beside in (False, True)
            )
            results += [
                {
                    "what": f"{what}, {threads} threads, {title}: {1000 * alone[key]:.0f} ms alone, {1000 * beside[key]:.0f} ms next to a busy core",
                    "ratio": beside[key] / alone[key],
                    "alone": alone[key],
                    "beside": beside[key],
                }
                for key, what in (("step", "training step"), ("slice", "slice"))
            ]
    return results


def main() -> None:
    """Measure, and print ratios first."""
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--network", default="cncl_fast", help="an overlay's name, or paper")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.network, quick=asked.quick)))
    else:
        report(compared(asked), asked)


if __name__ == "__main__":
    main()
