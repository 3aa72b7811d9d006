"""Training and evaluation as functions: runs that move, go on, are judged on other splits, and are refused."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.training.run import evaluate_run, resume_hint, train_bundle
from ct_cncl.pipeline.workflow.run import config_file, root_cause
from ct_cncl.transforms.common.errors import OutputError

QUIET = ["progress=false"]


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def moved_run(tiny_run, tmp_path):
    """A copy of the finished run in another place."""
    return shutil.copytree(tiny_run, tmp_path / "moved")


def test_a_run_that_has_moved_goes_on_where_it_is_now(moved_run, tiny_run):
    before = {path.name: path.stat().st_mtime_ns for path in tiny_run.iterdir()}
    first = (moved_run / "metrics.csv").read_text().splitlines()
    config = (moved_run / "config.json").read_text()
    train_bundle(out=moved_run, resume=True, assignments=["max_epochs=3"])
    assert {path.name: path.stat().st_mtime_ns for path in tiny_run.iterdir()} == before
    after = (moved_run / "metrics.csv").read_text().splitlines()
    assert after[:-1] == first
    assert after[-1].startswith("3,12,")
    assert torch.load(moved_run / "last.pt", weights_only=True)["trainer"]["iteration"] == 12
    assert len(json.loads((moved_run / "run.json").read_text())) == 2
    assert (moved_run / "config.json").read_text() == config


def test_a_finished_run_is_left_as_it_is(moved_run):
    before = (moved_run / "last.pt").read_bytes()
    train_bundle(out=moved_run, resume=True)
    assert (moved_run / "last.pt").read_bytes() == before


def test_resume_takes_no_overlay(moved_run):
    with pytest.raises(ConfigError, match="--with cannot be combined with --resume"):
        train_bundle(out=moved_run, resume=True, overlays=["narrow"])


@pytest.mark.parametrize("missing", ["config.json", "last.pt"])
def test_resume_needs_config_and_checkpoint(moved_run, missing):
    (moved_run / missing).unlink()
    with pytest.raises(CheckpointError, match="run to resume in"):
        train_bundle(out=moved_run, resume=True)


def test_overlays_are_merged_in_order_and_assignments_come_last(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a", {"seed": 5, "batch_size": 1}), ("b", {"batch_size": 4, "max_epochs": 9})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    small = {key: value for key, value in TINY.items() if key != "batch_size"} | {"max_epochs": 1}
    overlays = [str(tmp_path / f"{name}.json") for name in "ab"]
    data = Path(os.path.relpath(tiny_dataset, tmp_path))
    train_bundle(out=Path("run"), data=data, overlays=overlays, assignments=assignments(small))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [config[key] for key in ("seed", "batch_size", "max_epochs")] == [5, 4, 1]
    places = [Path(config[key]) for key in ("output_dir", "dataset_dir")]  # a resume may come from anywhere
    assert all(place.is_absolute() for place in places)
    assert [place.resolve() for place in places] == [(tmp_path / "run").resolve(), tiny_dataset.resolve()]
    assert [row["iteration"] for row in rows(tmp_path / "run" / "metrics.csv")] == ["2"]  # 8 patches, 4 at a time


def test_tensorboard_shows_what_a_run_does(tiny_dataset, tmp_path):
    """Losses, learning rates, validation with its loss, gradients and speed; the figures of metrics.csv."""
    changed = TINY | {"patches#per_epoch": 24, "train#handlers#7#interval": 4}
    train_bundle(out=tmp_path / "run", data=tiny_dataset, assignments=assignments(changed))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    steps = {tag: [each.step for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    by_epoch = {"lr/generator", "lr/discriminator", "psnr", "ssim_content", "validation_loss", "patches_per_second"}
    assert [steps[tag] for tag in by_epoch] == [[1, 2]] * len(by_epoch)
    assert steps["gradient_norm"] == [4, 8, 12, 16, 20, 24]
    assert steps["loss"] == steps["loss_noise"] == steps["d_accuracy"] == [10, 20]
    table = rows(tmp_path / "run" / "metrics.csv")
    for tag in ("psnr", "validation_loss"):
        assert [each.value for each in events.Scalars(tag)] == pytest.approx(
            [float(row[tag]) for row in table], rel=1e-4
        )
    assert float(table[0]["validation_loss"]) > 0
    assert all(each.value > 0 for tag in ("gradient_norm", "patches_per_second") for each in events.Scalars(tag))


def test_resume_hint(tiny_run, tmp_path):
    assert resume_hint(tmp_path) == f"Stopped before the first epoch had finished: {tmp_path} holds no checkpoint yet."
    assert resume_hint(tiny_run) == (
        f"Stopped. {tiny_run / 'last.pt'} holds the run after epoch 2; resume with: ct-cncl train --resume --out {tiny_run}"
    )


def test_evaluation_of_a_moved_run_goes_into_its_folder(moved_run, tiny_run):
    metrics = evaluate_run(moved_run, assignments=QUIET)
    assert sorted(path.name for path in (moved_run / "evaluation_validation").iterdir()) == [
        "pictures",
        "slices.csv",
        "summary.json",
    ]
    assert not (tiny_run / "evaluation_validation").exists()
    best = max(rows(moved_run / "metrics.csv"), key=lambda row: float(row["psnr"]))
    assert metrics["psnr"] == pytest.approx(float(best["psnr"]), abs=1e-4)
    with pytest.raises(OutputError, match="--overwrite"):
        evaluate_run(moved_run, assignments=QUIET)
    assert evaluate_run(moved_run, overwrite=True, assignments=QUIET) == metrics


def test_splits_data_and_checkpoints_are_the_ones_named(moved_run, tiny_dataset, tmp_path):
    """The input's figures tell the data apart, the result's the weights."""
    other = shutil.copytree(tiny_dataset, tmp_path / "other")
    listed = json.loads((other / "datalist.json").read_text())
    listed["validation"], listed["test"] = listed["test"], listed["validation"]
    (other / "datalist.json").write_text(json.dumps(listed))
    state = torch.load(moved_run / "last.pt", weights_only=True)
    for value in state["network_def"].values():
        value.zero_()
    torch.save(state, moved_run / "zero.pt")

    def figures(name, run=moved_run, **options):
        return evaluate_run(run, out=tmp_path / name, assignments=QUIET, **options)

    validation, test = figures("validation"), figures("test", split="test")
    assert validation["psnr_input"] != test["psnr_input"]
    assert figures("swapped", data=other) == test
    zero = figures("zero", run=moved_run / "zero.pt")
    assert zero["psnr_input"] == validation["psnr_input"]
    assert zero["rmse"] > 1.5 * validation["rmse"]
    with (tmp_path / "zero" / "slices.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 2


def test_evaluation_takes_all_slices_of_a_run_that_was_validated_on_fewer(moved_run, tmp_path):
    config = json.loads((moved_run / "config.json").read_text())
    config["validate"]["dataset"]["max_slices"] = 1
    (moved_run / "config.json").write_text(json.dumps(config))

    def evaluated(name, *assignments):
        evaluate_run(moved_run, out=tmp_path / name, assignments=[*QUIET, *assignments])
        return json.loads((tmp_path / name / "summary.json").read_text())["slices"]

    assert evaluated("all") == 2
    assert evaluated("asked", "validate.dataset.max_slices=1") == 1


def test_evaluation_needs_the_runs_config(moved_run):
    (moved_run / "config.json").unlink()
    with pytest.raises(ConfigError, match="config.json"):
        evaluate_run(moved_run)


def test_evaluation_needs_a_checkpoint(moved_run):
    (moved_run / "best.pt").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        evaluate_run(moved_run, assignments=QUIET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patches#per_epoch": 1}, "nothing would be trained"),
        ({"max_epochs": 1.5}, "a whole number of at least 1 for max_epochs"),
        ({"device": "cuda:77"}, "Expected a device of this machine"),
        ({"start_from": "/a#b/best.pt"}, "Expected a path without #"),
    ],
)
def test_a_run_that_would_leave_nothing_is_refused_before_it_is_made(tiny_dataset, tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        train_bundle(out=tmp_path / "run", data=tiny_dataset, assignments=assignments(TINY | change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patches#per_epoch": 1}, "nothing would be trained"),
        ({"max_epochs": 1.5}, "a whole number of at least 1 for max_epochs"),
    ],
)
def test_plain_monai_says_so_before_training_too(tiny_dataset, tmp_path, change, words):
    """What ``python -m monai.bundle run training`` does."""
    overrides = TINY | change | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")}
    workflow = ConfigWorkflow(
        config_file=str(config_file("train.json")), run_id="training", workflow_type="train", **overrides
    )
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert words in str(root_cause(caught.value))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_monai_would_call_another_is_refused(tiny_dataset, tiny_run, tmp_path):
    """Regression: a run in exp#3 lay in exp::3 instead, without report, and could not be resumed."""
    for out, data in ((tmp_path / "exp#3", tiny_dataset), (tmp_path / "run", tmp_path / "data#1")):
        with pytest.raises(ConfigError, match="Expected a path without #"):
            train_bundle(out=out, data=data, assignments=assignments(TINY))
    copy = shutil.copytree(tiny_run, tmp_path / "run#2")
    with pytest.raises(ConfigError, match="Expected a path without #"):
        evaluate_run(copy)
    with pytest.raises(ConfigError, match="Expected a path without #"):
        evaluate_run(tiny_run, out=tmp_path / "out#1")
    (tmp_path / "link").symlink_to(copy)
    assert evaluate_run(tmp_path / "link")["psnr"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"run#2", "link"}


def test_a_device_that_is_not_here_is_refused_when_evaluating(tiny_run):
    with pytest.raises(ConfigError, match="Expected a device of this machine"):
        evaluate_run(tiny_run, assignments=["device=cuda:77"])
