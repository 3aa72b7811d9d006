"""What the bundle's configs call."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from ct_cncl.pipeline.workflow.locations import (
    DatasetSplit,
    bundle_root,
    dataset_entries,
    installed_bundle,
    record_run,
    start_run,
)
from ct_cncl.pipeline.workflow.run import run_workflow
from ct_cncl.transforms.common.errors import DataError


def test_start_run_seeds_every_generator():
    drawn = []
    for seed in (5, 5, 6):
        start_run(seed=seed)
        drawn.append((torch.rand(1).item(), np.random.rand()))
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_a_run_leaves_busy_cores_to_other_jobs_and_resumes_as_it_began(tmp_path, monkeypatch, caplog):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    taken = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken[-1])
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    (tmp_path / "quiet").mkdir()
    record_run(tmp_path / "quiet", seed=1)
    assert (taken, caplog.text) == ([4], "")
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 3.0, 3.0))
    (tmp_path / "busy").mkdir()
    record_run(tmp_path / "busy", seed=1)
    assert taken == [4, 1]
    assert "training takes 1 of 4 threads. Set OMP_NUM_THREADS" in caplog.text
    (recorded,) = json.loads((tmp_path / "busy/run.json").read_text())
    assert recorded["threads_beside_other_jobs"] == recorded["machine"]["threads"] == 1
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    (tmp_path / "busy/last.pt").touch()
    taken[:] = [4]
    record_run(tmp_path / "busy", seed=1, resume=True)
    assert taken == [4, 1]
    (tmp_path / "quiet/last.pt").touch()
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 3.0, 3.0))
    taken[:] = [4]
    record_run(tmp_path / "quiet", seed=1, resume=True)
    assert taken == [4]


def test_the_bundle_is_that_of_the_working_directory_or_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle_root() == str(installed_bundle())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    assert bundle_root() == str(tmp_path)


def test_the_split_that_is_used_is_verified_and_only_that(tiny_dataset, tmp_path):
    folder = shutil.copytree(tiny_dataset, tmp_path / "data")
    volume = next((folder / "validation").glob("*_image.nii"))
    content = bytearray(volume.read_bytes())
    content[-1] ^= 1
    volume.write_bytes(content)
    assert len(dataset_entries(folder, "training")) == 2
    with pytest.raises(DataError, match=volume.name):
        dataset_entries(folder, "validation")
    (entry,) = dataset_entries(folder, "validation", verify=False)
    assert entry["image"] == str(volume)


@pytest.mark.parametrize("failing", [None, "initialize", "run"])
def test_run_workflow_takes_all_three_steps_and_unwraps_what_they_raise(failing):
    class Workflow:
        def __getattr__(self, name):
            def step():
                steps.append(name)
                if name == failing:
                    raise RuntimeError("Failed to evaluate it") from KeyError("the reason")

            return step

    steps, workflow = [], Workflow()
    if failing is None:
        assert run_workflow(workflow) is workflow
        assert steps == ["initialize", "run", "finalize"]
    else:
        with pytest.raises(KeyError, match="the reason"):
            run_workflow(workflow)
        assert steps[-1] == failing


def test_monais_load_writes_nothing_and_asks_for_no_data(tmp_path, monkeypatch):
    """It initialises the training workflow to get at the network."""
    from monai.bundle import load
    from tiny_runs import TINY_NETWORK
    from tiny_weights import tiny_cncl

    from ct_cncl.pipeline.workflow import locations as module

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "dataset_entries", lambda *_, **__: pytest.fail("data were asked for"))
    folder = tmp_path / "bundles" / "ct_cncl"
    shutil.copytree(installed_bundle() / "configs", folder / "configs")
    config = json.loads((folder / "configs" / "train.json").read_text())
    (folder / "configs" / "train.json").write_text(json.dumps(config | TINY_NETWORK))
    _, network = tiny_cncl(tmp_path / "run")
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    loaded = load("ct_cncl", bundle_dir=tmp_path / "bundles", device="cpu")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert {path.name for path in tmp_path.iterdir()} == {"bundles", "run"}


def test_a_split_is_read_when_it_is_first_asked_for(tiny_dataset, tmp_path):
    nowhere = DatasetSplit(tmp_path / "nowhere", "training")
    with pytest.raises(DataError, match="no datalist.json"):
        len(nowhere)
    split = DatasetSplit(tiny_dataset, "training")
    assert [entry["image"] for entry in split] == [
        entry["image"] for entry in dataset_entries(tiny_dataset, "training")
    ]
    assert pickle.loads(pickle.dumps(split))[1] == split[1]


def test_another_data_set_comes_after_and_short_scans_count_for_more(tiny_dataset, tmp_path):
    other = shutil.copytree(tiny_dataset, tmp_path / "other")
    both = DatasetSplit(tiny_dataset, "validation", also=other, least_slices=4)  # volumes of two slices
    (own,) = dataset_entries(tiny_dataset, "validation")
    assert [entry["label"] == own["label"] for entry in both] == [True, True, False, False]
    assert both.own_entries == [own]
    (full,) = DatasetSplit(tiny_dataset, "validation", full_dose_as_input=True)
    assert full["image"] == full["label"] == own["label"]


def test_only_one_process_makes_the_phantoms(tmp_path):
    """A second one waits for the lock of the first, and finds them made."""
    code = """
import sys, time
from pathlib import Path
from ct_cncl.pipeline.workflow import locations
def slowly(folder):
    print("making", flush=True)
    time.sleep(1)
    folder.mkdir()
    (folder / "datalist.json").write_text("{}")
locations._prepare_phantoms = slowly
locations._prepare_phantoms_once(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache" / "phantoms")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert sorted(said) == ["", "making\n"]
    assert all(process.returncode == 0 for process in processes)
