import os

import pytest

from ct_cncl.pipeline.common.threads import threads_beside_others


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.2, 9.0, 9.0))


@pytest.mark.parametrize(
    ("threads", "cores", "load", "left"),
    [(2, 2, 1.2, 1), (2, 2, 0.9, 1), (8, 8, 3.1, 5), (8, 8, 40.0, 1), (4, 8, 6.2, 2)],
)
def test_busy_cores_are_left_to_their_jobs(monkeypatch, threads, cores, load, left):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert threads_beside_others(threads) == left


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", "2")]
)
def test_not_where_the_user_has_chosen(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert threads_beside_others(2) == 2


@pytest.mark.parametrize(("threads", "cores", "load"), [(1, 2, 5.0), (2, 2, 0.5), (2, 4, 2.5)])
def test_not_where_nothing_waits(monkeypatch, threads, cores, load):
    """One thread waits for none; idle cores take the other jobs."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert threads_beside_others(threads) == threads
