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


def busy_cores_hint(threads: int) -> str:
    """What to do about other jobs on the cores that ``threads`` threads are going to use; "" where nothing is to be done.

    Args:
        threads: that compute together, each on a core.
    """
    if threads < 2 or any(name in os.environ for name in _WAITING) or not hasattr(os, "getloadavg"):
        return ""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load + threads <= cores + _BUSY:
        return ""
    return (
        f"Other jobs are running (load {load:.1f}, {cores} cores), and threads will wait for each other. "
        f"Start again with {'='.join(SPIN_COUNT)} in the environment, as ct-cncl does, to lose less time."
    )
