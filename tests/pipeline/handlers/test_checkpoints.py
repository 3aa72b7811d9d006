import errno
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import load_file, load_weights
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.handlers.checkpoints import Checkpoints
from ct_cncl.transforms.common.errors import OutputError


class Score(Engine):
    def __init__(self):
        super().__init__(lambda engine, batch: None)
        self.state.metrics = {"psnr": 0.0}
        self.state.key_metric_name = "psnr"


def train(folder, network, *, scores=(1, 3, 2), resume=False, seen=None, **options):
    """An epoch a score; the network's weight becomes the epoch."""
    optimizer = torch.optim.Adam(network.parameters())
    evaluator = Score()

    def step(engine, _batch):
        if seen is not None:
            seen.append((engine.state.epoch, torch.rand(1).item(), np.random.rand(), random.random()))
        network(torch.ones(1, 1, 2, 2)).sum().backward()
        optimizer.step()
        nn.init.constant_(network.weight, engine.state.epoch)
        evaluator.state.metrics["psnr"] = float(scores[engine.state.epoch - 1])

    engine = Engine(step)
    objects = {"network_def": network, "optimizer": optimizer, "nothing": None}
    handler = Checkpoints(folder, objects, evaluator=evaluator, resume=resume, **options)
    engine_objects = {"trainer": engine}
    engine.resumable = engine_objects
    handler.attach(engine)
    engine.run([0], max_epochs=len(scores))
    return handler, optimizer


def network():
    return nn.Conv2d(1, 1, 1)


def test_the_best_score_is_said_by_one_process(tmp_path, caplog, monkeypatch):
    with caplog.at_level("INFO", logger="ct_cncl"):
        train(tmp_path / "first", network(), scores=(21.5, 1, 43.25))
        monkeypatch.setenv("RANK", "1")
        train(tmp_path / "second", network(), scores=(1, 3))
    said = [record.getMessage() for record in caplog.records if "so far" in record.getMessage()]
    assert said == ["Best PSNR so far: 21.50 dB, epoch 1.", "Best PSNR so far: 43.25 dB, epoch 3."]


def test_last_and_best(tmp_path):
    train(tmp_path, network())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (best["epoch"], best["score"], best["network_def"]["weight"].item()) == (2, 3.0, 2.0)
    assert (last["best"], last["network_def"]["weight"].item()) == ([3.0, 2], 3.0)
    assert load_weights(network(), tmp_path / "best.pt").weight.item() == 2


def test_resume_restores_everything(tmp_path):
    whole, parts = [], []
    for folder, record, lengths in (("one", whole, [4]), ("two", parts, [2, 4])):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        for number, length in enumerate(lengths):
            if number:
                torch.manual_seed(9)
                np.random.seed(9)
                random.seed(9)
            scores = (1, 5, 2, 3)[:length]
            handler, optimizer = train(tmp_path / folder, network(), scores=scores, resume=number > 0, seen=record)
    assert parts == whole
    assert (handler.best_score, handler.best_epoch) == (5, 2)
    assert optimizer.state_dict()["state"][0]["step"].item() == 4


def test_folder_and_resume_must_agree(tmp_path):
    with pytest.raises(CheckpointError, match="run to resume"):
        train(tmp_path, network(), resume=True)
    train(tmp_path, network())
    with pytest.raises(CheckpointError, match="without a run"):
        train(tmp_path, network())


def test_nothing_is_saved_where_saving_is_off(tmp_path):
    train(tmp_path, network(), save=False)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_network(tmp_path):
    train(tmp_path, network())
    for use in (
        lambda: load_weights(nn.Conv2d(1, 2, 1), tmp_path / "last.pt"),
        lambda: train(tmp_path, nn.Conv2d(1, 2, 1), resume=True, scores=(1, 2, 3, 4)),
    ):
        with pytest.raises(CheckpointError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "another one" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_corrupted_file(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_file(tmp_path / "last.pt")
    assert "\n" not in str(caught.value)


def test_missing_file_and_code_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_file(tmp_path / "none.pt")
    torch.save({"network_def": network()}, tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="weights_only"):
        load_file(tmp_path / "module.pt")


def test_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    train(tmp_path, network(), scores=(1,))
    before = (tmp_path / "last.pt").read_bytes()

    def full(_content, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        train(tmp_path, network(), scores=(1, 0), resume=True)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]
