"""Settings of train.json that change how fast and in how much memory it trains, and nothing else."""

import pytest
import torch
from tiny_runs import TINY, assignments, same

from ct_cncl.pipeline.handlers.checkpoints import resuming
from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.run import build_workflow, config_file

RUN = TINY | {"network_def#content#norm": "batch", "network_def#noise#norm": "batch", "batch_size": 4}
SPEED = {
    "train#trainer#accumulate": 2,
    "train#dataset#cache": "ram",
    "train#trainer#generator#channels_last": True,
    "train#trainer#generator#recompute_activations": True,
    "optimizer#fused": True,
    "adversarial#optimizer#fused": True,
}


def trained(data, out, **overrides):
    train_bundle(out=out, data=data, assignments=assignments(RUN | overrides))
    return torch.load(out / "last.pt", weights_only=True)


def test_every_setting_reaches_its_place(tiny_dataset, tmp_path):
    overrides = (
        RUN
        | SPEED
        | {
            "dataset_dir": str(tiny_dataset),
            "output_dir": str(tmp_path / "run"),
            "train#trainer#generator#compiled": True,
        }
    )
    workflow = build_workflow([config_file("train.json")], run_id="training", overrides=overrides)
    workflow.initialize()
    part = workflow.parser.get_parsed_content
    assert part("train#trainer").accumulate == 2
    assert part("train#dataset").volumes.cache == "ram"
    assert part("train#dataset").device == part("device")
    weight = part("network_def").content.down[0][3].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert "checkpoint" in repr(part("network_def").content.up[0].forward)
    assert part("train#trainer").generator._compiled_call_impl is not None
    assert part("train#trainer").generator.network is part("network") is part("network_def")


def test_all_of_them_resume_to_the_bit(tiny_dataset, tmp_path):
    undisturbed = trained(tiny_dataset, tmp_path / "once", **SPEED, max_epochs=3)
    trained(tiny_dataset, tmp_path / "twice", **SPEED, max_epochs=1)
    train_bundle(out=tmp_path / "twice", resume=True, assignments=["max_epochs=3"])
    resumed = torch.load(tmp_path / "twice" / "last.pt", weights_only=True)
    for name in sorted(set(undisturbed) - {"lr_scheduler", "d_lr_scheduler"}):  # they hold max_epochs as it first was
        assert same(resumed[name], undisturbed[name]), name


def test_recomputing_and_caching_change_nothing(tiny_dataset, tmp_path):
    plain = trained(tiny_dataset, tmp_path / "plain")
    found = trained(
        tiny_dataset, tmp_path / "other", **{key: SPEED[key] for key in SPEED if "recompute" in key or "cache" in key}
    )
    assert same(found["network_def"], plain["network_def"])


def test_the_same_command_begins_a_run_and_goes_on_with_it(tiny_dataset, tmp_path):
    for epochs in (1, 2):
        found = trained(tiny_dataset, tmp_path / "run", resume="auto", max_epochs=epochs)
        assert found["trainer"]["iteration"] == 2 * epochs
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_a_run_goes_on_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert [resuming(tmp_path, resume) for resume in (True, False, "auto")] == [True, False, False]
    (tmp_path / "last.pt").touch()
    assert [resuming(tmp_path, resume) for resume in (True, False, "auto")] == [True, False, True]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert resuming(tmp_path, False)
    assert not resuming(tmp_path / "elsewhere", False)
    with pytest.raises(ValueError, match="true, false or auto, but got 'yes'"):
        resuming(tmp_path, "yes")
