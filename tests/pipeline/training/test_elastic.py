"""torchrun --max-restarts: a process that dies takes no training with it."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from tiny_runs import ROOT, TINY, assignments, fire_arguments, free_port

from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.run import config_file

TOLERANCE = 1e-4
"""Of losses, relative, and of weights, absolute: two processes sum in another order than one."""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_in_mid_epoch_changes_nothing(tiny_dataset, tmp_path, rank):
    """Four epochs of two iterations; after the first of the third a rank is killed, and the third begins anew.

    Where it is the second rank, each process's batch goes through in two parts.
    """
    killer = {"+train#handlers": [{"_target_": "killed_rank.KilledRank", "rank": rank, "iteration": 5}]}
    (tmp_path / "killer.json").write_text(json.dumps(killer))
    overrides = TINY | {"max_epochs": 4, "train#dataloader#num_workers": 0}
    files = str(
        [*map(str, (config_file("train.json"), config_file("multi_gpu_train.json"))), str(tmp_path / "killer.json")]
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max_restarts=1"]
    command += [f"--master_port={free_port()}", "-m", "monai.bundle", "run", "training", "--config_file", files]
    own = {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "two"), "train#trainer#accumulate": rank + 1}
    command += fire_arguments(overrides | own)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT / "tests" / "helpers"),
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exitcode: -9" in done.stderr, "no rank was killed"
    assert len(json.loads((tmp_path / "two" / "run.json").read_text())) == 2  # begun, and begun again
    assert "Resumed from" in done.stdout + done.stderr

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_bundle(out=tmp_path / "one", data=tiny_dataset, assignments=assignments(overrides | {"batch_size": 4}))
    finally:
        torch.set_num_threads(threads)
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    assert two["trainer"]["iteration"] == one["trainer"]["iteration"] == 8
    for name, weight in one["network_def"].items():
        assert torch.allclose(weight, two["network_def"][name], atol=TOLERANCE), name
    rows = {name: list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")}
    assert [row["epoch"] for row in rows["two"]] == ["1", "2", "3", "4"]
    assert float(rows["two"][-1]["loss"]) == pytest.approx(float(rows["one"][-1]["loss"]), rel=TOLERANCE)
