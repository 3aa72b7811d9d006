"""Two processes train as one with the same global batch."""

import csv
import os
import re
import subprocess
import sys

import pytest
import torch
from tiny_patches import pairs
from tiny_runs import LOG_LINE, TINY, assignments, fire_arguments, free_port

from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.run import config_file


@pytest.mark.slow
def test_two_gloo_processes_equal_one(tiny_dataset, tmp_path):
    overrides = TINY | {"max_epochs": 3, "dataset_dir": str(tiny_dataset), "train#dataloader#num_workers": 0}
    files = str([str(config_file("train.json")), str(config_file("multi_gpu_train.json"))])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", files]
    command += fire_arguments(overrides | {"batch_size": 2, "output_dir": str(tmp_path / "two")})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ("Terms: ", "Epoch 2 of 3", "dB, epoch 1."):  # said by one of the processes, in MONAI's format
        (line,) = [line for line in done.stderr.splitlines() if words in line]
        assert re.match(LOG_LINE, line)

    del overrides["dataset_dir"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun's processes: Adam would blow up another order of summation
    try:
        train_bundle(out=tmp_path / "one", data=tiny_dataset, assignments=assignments(overrides | {"batch_size": 4}))
    finally:
        torch.set_num_threads(threads)
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True)["network_def"] for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=1e-4), name
    rows = {name: list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")}
    assert len(rows["one"]) == len(rows["two"]) == overrides["max_epochs"]
    for a, b in zip(rows["one"], rows["two"]):
        for column in ("psnr", "psnr_input", "psnr_content", "rmse"):  # means over the slices of both processes
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4), column
        losses = [column for column in a if column.startswith(("loss", "d_"))]
        assert {"loss", "loss_content", "loss_noise", "loss_fused", "loss_adversarial", "d_real"} <= set(losses)
        for column in losses:  # means over the patches of both processes
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4, abs=1e-4), column


def test_first_losses_of_two_ranks_average_to_one_process(tiny_dataset):
    """Without a process group: the samples of two ranks together are those of one process, so the mean losses agree."""
    from ct_cncl.transforms.dataset.datalist import read_datalist
    from ct_cncl.transforms.patches.patch_pairs import SampleNumbers

    data = pairs(read_datalist(tiny_dataset)["training"], 16, per_epoch=8, seed=0)

    def batches(rank, world, size):
        numbers = list(SampleNumbers(8, rank=rank, world_size=world))
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        return [
            torch.stack([(data[n]["image"] - data[n]["label"]).abs().mean() for n in chunk]).mean() for chunk in chunks
        ]

    both = zip(batches(0, 2, 2), batches(1, 2, 2))
    for (a, b), alone in zip(both, batches(0, 1, 4)):
        assert float((a + b) / 2) == pytest.approx(float(alone), rel=1e-6)
