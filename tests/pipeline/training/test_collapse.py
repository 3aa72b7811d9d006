"""Question 3 of the notes, provoked: a texture loss that destroys the content branch is noticed at once."""

import csv
import json
import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.training.run import train_bundle

# As narrow: both branches start at the input's quality.
START = {f"network_def#{branch}#zero_start": True for branch in ("content", "noise")}
NO_JUDGE = {key: value for key, value in TINY.items() if "discriminator" not in key}
RUN = NO_JUDGE | START | {"network_def#content#residual": True, "network_def#init_std": None, "patches#per_epoch": 40}
RUN |= {"max_epochs": 4, "learning_rate": 2e-3, "train#handlers#4#span": 10}


def train(folder, data, overlays, extra):
    train_bundle(out=folder, data=data, overlays=["pixel_only", *overlays], assignments=assignments(RUN | extra))
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


HOSTILE = {
    "texture#encoder#_target_": "tiny_encoders.HostileEncoder",
    "texture#layers": ["conv1_1"],
    "texture#images": ["content"],
}


@pytest.fixture
def log():
    """What BranchHealth says; MONAI's logging.conf takes the handlers of pytest away."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("ct_cncl.pipeline.handlers.branch_health")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_a_hostile_texture_loss_is_noticed(tiny_dataset, tmp_path, log):
    rows = train(tmp_path / "run", tiny_dataset, ["texture_1"], HOSTILE)
    said = [row["branch_health"] for row in rows]
    assert all("the loss of C(y) has risen to" in text for text in said)  # seen before the first validation
    assert float(rows[-1]["psnr_content"]) < float(rows[-1]["psnr_input"]) - 10
    assert float(rows[-1]["psnr"]) > float(rows[-1]["psnr_input"]) - 1  # the result tells nothing
    assert log[0].startswith("Branch health, epoch 1, iteration 20: the loss of C(y)")
    assert len(log) >= len(rows)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert events.Scalars("branch_health/warnings")[-1].value >= 1
    assert "branch_health/text_summary" in events.Tags()["tensors"]
    assert float(rows[-1]["loss_texture_content"]) > 0


def test_the_same_training_without_it_is_healthy(tiny_dataset, tmp_path, log):
    rows = train(tmp_path / "run", tiny_dataset, [], {})
    assert [row["branch_health"] for row in rows] == [""] * 4
    assert float(rows[-1]["psnr_content"]) > float(rows[-1]["psnr_input"])
    assert log == []
    assert -1 <= float(rows[-1]["edge_correlation"]) <= 1


def test_a_branch_of_trained_weights_that_collapses_is_noticed_at_the_first_validation(tiny_dataset, tmp_path):
    """It began above the input: there is nothing to be patient about, as with a network that begins from nothing."""
    train(tmp_path / "good", tiny_dataset, [], {"max_epochs": 1})
    unseen = HOSTILE | {"max_epochs": 1, "train#handlers#4#span": 10**6}  # by losses it would not be seen
    start = {"start_from": str(tmp_path / "good" / "best.pt")}
    (warned,) = train(tmp_path / "from_good", tiny_dataset, ["texture_1"], unseen | start)
    assert warned["branch_health"].startswith("C(y) is ")
    assert "below the input" in warned["branch_health"]
    (patient,) = train(tmp_path / "from_nothing", tiny_dataset, ["texture_1"], unseen)
    assert patient["branch_health"] == ""


def test_stop_on_collapse_ends_it_and_keeps_the_checkpoint(tiny_dataset, tmp_path):
    rows = train(tmp_path / "run", tiny_dataset, ["texture_1"], HOSTILE | {"train#stop_on_collapse": True})
    assert len(rows) == 1
    assert rows[-1]["branch_health"]
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert last["trainer"]["iteration"] == 20 * len(rows)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["stop_on_collapse"] is True
