"""What the bundle's configs call."""

import json
import shutil

import numpy as np
import pytest
import torch

from ct_cncl.pipeline.workflow.locations import bundle_root, dataset_entries, installed_bundle, start_run
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
    """It initializes the training workflow to get at the network."""
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
