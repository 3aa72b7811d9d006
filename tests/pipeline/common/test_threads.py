import os

import pytest

from ct_cncl.pipeline.common.threads import busy_cores_hint


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.2, 9.0, 9.0))


def test_threads_that_share_a_busy_core_are_told_what_helps():
    hint = busy_cores_hint(2)
    assert "load 1.2, 2 cores" in hint
    assert "GOMP_SPINCOUNT=1000" in hint


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "PASSIVE")])
def test_not_where_the_user_has_chosen(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert busy_cores_hint(2) == ""


@pytest.mark.parametrize(("threads", "cores", "load"), [(1, 2, 5.0), (2, 2, 0.5), (2, 4, 2.5)])
def test_not_where_nothing_waits(monkeypatch, threads, cores, load):
    """One thread waits for none; idle cores take the other jobs."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert busy_cores_hint(threads) == ""
