"""Two runs into one folder: the second is told who is at work there, and changes nothing."""

import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import TINY, assignments
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.ablation.plan import Ablation
from ct_cncl.pipeline.ablation.run import run_ablation
from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.pipeline.interpolation.run import interpolate
from ct_cncl.pipeline.sharing.pack import pack
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.dataset.datalist import SPLITS
from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
from ct_cncl.transforms.dataset.writer import write_dataset

HOLD = """
import sys, time
from ct_cncl.transforms.common.locks import alone_in
with alone_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def prepare(tmp_path):
    zeros = np.zeros((8, 8, 1), np.float32)
    write_dataset(tmp_path / "out", {"training": [Case("p", "s", 0.25, lambda: Pair(zeros, zeros, np.eye(4), {}))]})


def interpolated(tmp_path):
    interpolate(tiny_cncl(tmp_path / "f")[0], tiny_cncl(tmp_path / "g")[0], alpha=0.5, out=tmp_path / "out")


def ablate(tmp_path):
    zeros = np.zeros((8, 8, 1), np.float32)
    cases = {split: [Case(split, "s", 0.25, lambda: Pair(zeros, zeros, np.eye(4), {}))] for split in SPLITS}
    write_dataset(tmp_path / "data", cases)
    run_ablation(Ablation(tmp_path / "out", ("narrow",), data=tmp_path / "data", iterations=1))


RUNS = {
    "prepare": prepare,
    "train": lambda tmp_path: train_bundle(out=tmp_path / "out", assignments=assignments(TINY)),
    "evaluate files": lambda tmp_path: evaluate_files(EvaluateOptions(tmp_path, (tmp_path,), tmp_path / "out")),
    "interpolate": interpolated,
    "ablate": ablate,
}


@pytest.fixture
def held(tmp_path):
    """A process that is at work in a folder."""
    running = []

    def hold(folder):
        running.append(subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "held\n"
        return running[-1].pid

    yield hold
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", RUNS)
def test_the_second_run_is_told_of_the_first(command, tmp_path, held):
    pid = held(tmp_path / "out")
    with pytest.raises(OutputError, match=f"out for this run alone, but process {pid} is already running there"):
        RUNS[command](tmp_path)
    assert not (tmp_path / "out").exists()


def test_evaluations_of_a_run_and_packing(tmp_path, held, tiny_run):
    held(tiny_run / "evaluation_validation")
    with pytest.raises(OutputError, match="this run alone"):
        evaluate_run(tiny_run, assignments=["progress=false"])
    held(tmp_path / f"ct_cncl_v{__version__}.zip")
    with pytest.raises(OutputError, match="this run alone"):
        pack(tmp_path)
