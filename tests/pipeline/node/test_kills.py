"""Killed at any step, with senders at work and the destination down now and then: every series once, equal to an undisturbed run.

`benchmarks/node_kills.py` does the same with 100 kills, 20 series, and the destination down for two minutes twice.
"""

import os

import pytest

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from node_kills import check, check_spool, run_kills, undisturbed

KILLS, SERIES, SLICES = 10, 6, 4


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), SERIES, SLICES)


@pytest.mark.parametrize("seed", [int(text) for text in os.environ.get("NODE_KILL_SEEDS", "1").split(",")])
def test_ten_kills(plain_run, tmp_path, seed):
    source, weights, expected = plain_run
    there, node = run_kills(tmp_path, source, weights, seed=seed, kills=KILLS)
    check(there, expected, KILLS)
    check_spool(node, SERIES, SLICES)
    assert "Traceback" not in (tmp_path / "node.log").read_text()
