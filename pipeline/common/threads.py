"""How OpenMP's threads wait for each other, which decides how much a job on one of their cores slows them all down."""

from __future__ import annotations

import os

SPIN_COUNT = ("GOMP_SPINCOUNT", "1000")
"""How long a thread of OpenMP spins before it sleeps while it waits for the others. Next to a busy core, a training step takes 3.2 to 3.4
times as long with libgomp's own 300000, and 1.7 to 2.1 times with this (benchmarks/beside.py)."""
_WAITING = (SPIN_COUNT[0], "OMP_WAIT_POLICY")
_BUSY = 0.7
"""Load above what the idle cores can take from which another job is at work; a start alone makes less."""


def set_spin_count() -> None:
    """Choose how threads wait, unless the user has. Only before torch is loaded: OpenMP reads it once."""
    if not any(name in os.environ for name in _WAITING):
        os.environ[SPIN_COUNT[0]] = SPIN_COUNT[1]


def threads_beside_others(threads: int) -> int:
    """How many threads leave busy cores to the jobs that are on them; ``threads`` where nothing is gained, or the user has chosen.

    For programs that load torch before this project can choose how its threads wait. With libgomp's own spin count, two threads next
    to a busy core take 3.2 to 3.4 times as long for a training step, one thread 1.4 to 2.0 times (benchmarks/beside.py).

    Args:
        threads: that would compute together, each on a core.
    """
    chosen = any(name in os.environ for name in (*_WAITING, "OMP_NUM_THREADS"))
    if threads < 2 or chosen or not hasattr(os, "getloadavg"):
        return threads
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load + threads <= cores + _BUSY:
        return threads
    return min(threads, max(1, cores - max(1, round(load))))
