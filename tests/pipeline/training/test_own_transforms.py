"""A user's own list of transforms: one of MONAI's more, one of ours fewer; a kill and a resume change nothing."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from ignite.engine import Events
from tiny_runs import TINY, assignments, fire_arguments, same

from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.run import build_workflow, config_file

NOISE = {"_target_": "RandGaussianNoised", "keys": ["image"], "prob": 0.7, "std": 0.01}
SMOOTH = {"_target_": "RandGaussianSmoothd", "keys": ["image"], "prob": 0.5}
FLIPS = 7
"""Place of RandOrientationd in the list, as docs/reference/training_config.md has it."""


@pytest.fixture
def overlay(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"+train#preprocessing#transforms": [NOISE, SMOOTH]}))
    return path


def names(workflow):
    transforms = workflow.parser.get_parsed_content("train#dataset").transform.transforms
    return [type(one).__name__ for one in transforms]


def test_a_run_with_transforms_of_monai_ends_with_the_weights_of_one_never_killed(overlay, tiny_dataset, tmp_path):
    overrides = TINY | {"max_epochs": 4, "dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")}
    workflow = build_workflow([config_file("train.json"), overlay], run_id="training", overrides=overrides)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.EPOCH_STARTED(once=3))
    def as_if_killed(_engine):
        shutil.copytree(tmp_path / "run", tmp_path / "killed")

    workflow.run()
    resumed = train_bundle(out=tmp_path / "killed", resume=True)
    assert names(workflow) == names(resumed)
    assert names(workflow)[-3:] == ["HUToNetworkd", "RandGaussianNoised", "RandGaussianSmoothd"]
    whole, again = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("run", "killed"))
    assert whole["trainer"]["iteration"] == 16
    assert same(whole, again)

    plain = train_bundle(out=tmp_path / "plain", data=tiny_dataset, assignments=assignments(TINY | {"max_epochs": 4}))
    assert "RandGaussianNoised" not in names(plain)
    other = torch.load(tmp_path / "plain" / "last.pt", weights_only=True)
    assert not same(whole["network_def"], other["network_def"])  # they do something


def test_workers_change_nothing_about_them(overlay, tiny_dataset, tmp_path):
    found = []
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        own = TINY | {"max_epochs": 1, "train#dataloader#num_workers": workers}
        train_bundle(out=run, data=tiny_dataset, overlays=[str(overlay)], assignments=assignments(own))
        found.append(torch.load(run / "last.pt", weights_only=True)["network_def"])
    assert same(*found)


def test_without_the_flips(tiny_dataset, tmp_path):
    """MONAI's own word for it: a disabled component is left out of its list."""
    own = TINY | {"max_epochs": 1, f"train.preprocessing.transforms.{FLIPS}._disabled_": True}
    workflow = train_bundle(out=tmp_path / "run", data=tiny_dataset, assignments=assignments(own))
    assert "RandOrientationd" not in names(workflow)
    assert len(names(workflow)) == 8
    dataset = workflow.parser.get_parsed_content("train#dataset")
    cut = next(one for one in dataset.transform.transforms if type(one).__name__ == "RandPatchd").transform
    for number in range(5):
        item = dataset[number]
        (x, y), stored = cut.place, dataset.source(number)["label"].numpy()
        hu = item["label"].numpy() * 4096 - 1024
        np.testing.assert_array_equal(hu, stored[:, x : x + 32, y : y + 32])


def test_a_seed_of_its_own_is_another_run(overlay, tiny_dataset, tmp_path):
    """What MONAI's transforms draw follows ``seed``, as everything does."""
    images = []
    for seed in (0, 1):
        overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / str(seed)), "seed": seed}
        workflow = build_workflow([config_file("train.json"), overlay], overrides=overrides)
        workflow.initialize()
        images.append(workflow.parser.get_parsed_content("train#dataset")[3]["image"])
    assert not torch.equal(*images)


@pytest.mark.slow
def test_plain_monai_runs_the_same(overlay, tiny_dataset, tmp_path):
    """``python -m monai.bundle run training`` with the overlay's file, and ``ct-cncl train --with``: the same weights."""
    own = TINY | {"max_epochs": 1}
    files = str([str(config_file("train.json")), str(overlay)])
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files]
    command += fire_arguments(own | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "monai")})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_bundle(out=tmp_path / "ours", data=tiny_dataset, overlays=[str(overlay)], assignments=assignments(own))
    finally:
        torch.set_num_threads(threads)
    weights = [torch.load(tmp_path / run / "last.pt", weights_only=True)["network_def"] for run in ("monai", "ours")]
    assert same(*weights)
    config = json.loads((tmp_path / "monai" / "config.json").read_text())
    assert config["train"]["preprocessing"]["transforms"][-2:] == [NOISE, SMOOTH]
