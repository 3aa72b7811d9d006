"""What a resumed run must find again: gradient scalers, the best score, its own length; and what it refuses."""

import logging
import math

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import load_weights
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.handlers.checkpoints import Checkpoints


def evaluator_stub(score):
    engine = Engine(lambda _engine, _batch: None)
    engine.state.metrics, engine.state.key_metric_name = {"rmse": 1e9, "psnr": score}, "psnr"
    return engine


def train(folder, *, epochs, scores=None, scaler=None, step=None, objects=None, **options):
    """``step(epoch)`` in every epoch; the engine's resumable state is its own and the scaler's."""
    network = nn.Conv2d(1, 1, 1)
    evaluator = None if scores is None else evaluator_stub(scores[0])

    def iterate(engine, _batch):
        epoch = engine.state.epoch
        nn.init.constant_(network.weight, epoch)
        if scores is not None:
            evaluator.state.metrics = {} if scores[epoch - 1] is None else {"rmse": -epoch, "psnr": scores[epoch - 1]}
        if step is not None:
            step(epoch)

    engine = Engine(iterate)
    engine.resumable = {"trainer": engine} | ({} if scaler is None else {"g_scaler": scaler})
    handler = Checkpoints(folder, {"network_def": network, **(objects or {})}, evaluator=evaluator, **options)
    handler.attach(engine)
    engine.run([0], max_epochs=epochs)
    return handler, network


def overflowing_step(scaler):
    """A step of torch's own scaler whose gradient is infinite in epoch 2: skipped, the scale halved."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.25)

    def step(epoch):
        before = parameter.item()
        optimizer.zero_grad()
        factor = math.inf if epoch == 2 else 1.0
        scaler.scale((parameter * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert parameter.item() == before - (0 if epoch == 2 else 0.25)

    return step


def scaler_of(**options):
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3, enabled=True, **options)


def test_gradient_scaler_goes_on_where_it_was(tmp_path):
    """Epochs 1 to 6: halved in 2, doubled after three good steps in 5. A new scaler would start at 1024 again."""
    whole, first, second = scaler_of(), scaler_of(), scaler_of()
    train(tmp_path / "whole", epochs=6, scaler=whole, step=overflowing_step(whole))
    train(tmp_path / "parts", epochs=4, scaler=first, step=overflowing_step(first))
    assert (first.get_scale(), first.state_dict()["_growth_tracker"]) == (512, 2)
    saved = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["g_scaler"]
    assert (saved["scale"], saved["_growth_tracker"]) == (512, 2)
    train(tmp_path / "parts", epochs=6, scaler=second, step=overflowing_step(second), resume=True)
    assert (second.get_scale(), second.state_dict()["_growth_tracker"]) == (1024, 1)
    assert second.state_dict() == whole.state_dict()


def test_a_scaler_that_is_off_saves_nothing_and_loads_nothing(tmp_path):
    off = torch.amp.GradScaler("cpu", enabled=False)
    train(tmp_path, epochs=1, scaler=off)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["g_scaler"] == {}
    train(tmp_path, epochs=2, scaler=torch.amp.GradScaler("cpu", enabled=False), resume=True)


def test_fp16_refuses_the_checkpoint_of_another_precision(tmp_path):
    train(tmp_path, epochs=1, scaler=torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(CheckpointError, match="g_scaler in .*another one"):
        train(tmp_path, epochs=2, scaler=scaler_of(), resume=True)


def test_best_score_outlives_the_process(tmp_path):
    train(tmp_path, epochs=2, scores=(30.0, 20.0))
    handler, _ = train(tmp_path, epochs=4, scores=(None, None, 29.0, 30.0), resume=True)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["epoch"], best["score"], best["network_def"]["weight"].item()) == (1, 30.0, 1.0)
    assert (handler.best_score, handler.best_epoch) == (30.0, 1)  # 30.0 again is no better
    train(tmp_path, epochs=5, scores=(None, None, None, None, 31.0), resume=True)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["network_def"]["weight"].item() == 5


def test_nan_is_never_best_and_a_negative_score_can_be(tmp_path):
    train(tmp_path, epochs=3, scores=(math.nan, -5.0, math.nan))
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["epoch"], best["score"]) == (2, -5.0)


def test_without_validation_there_is_no_best(tmp_path):
    train(tmp_path / "none", epochs=2)
    train(tmp_path / "empty", epochs=2, scores=(None, None))
    for name in ("none", "empty"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["last.pt"]


@pytest.mark.parametrize(("epochs", "saved"), [(7, [0, 0, 3, 3, 3, 6, 7]), (6, [0, 0, 3, 3, 3, 6])])
def test_interval_and_the_last_epoch(tmp_path, epochs, saved):
    seen = []

    def look(_epoch):
        path = tmp_path / "last.pt"
        seen.append(torch.load(path, weights_only=True)["trainer"]["iteration"] if path.exists() else 0)

    train(tmp_path, epochs=epochs, step=look, interval=3)
    look(None)
    assert seen[1:] == saved


def test_a_resumed_run_may_be_longer(tmp_path):
    train(tmp_path, epochs=2)
    epochs = []
    _, network = train(tmp_path, epochs=5, step=epochs.append, resume=True)
    assert epochs == [3, 4, 5]
    assert network.weight.item() == 5
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["max_epochs"] == 5


def test_an_object_that_the_checkpoint_lacks_is_named(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="ema is missing"):
        train(tmp_path, epochs=2, objects={"ema": nn.Linear(1, 1)}, resume=True)


def test_a_missing_tensor_is_counted(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="another one: 2 tensors are missing"):
        load_weights(nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "last.pt")


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    def optimizer(count):
        return torch.optim.Adam([nn.Parameter(torch.ones(1)) for _ in range(count)])

    train(tmp_path, epochs=1, objects={"optimizer": optimizer(1)})
    with pytest.raises(CheckpointError, match="optimizer in .*another one") as caught:
        train(tmp_path, epochs=2, objects={"optimizer": optimizer(2)}, resume=True)
    assert "\n" not in str(caught.value)


def test_objects_without_the_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'network_def' among the objects"):
        Checkpoints(tmp_path, {"network": nn.Conv2d(1, 1, 1)})


def test_weights_come_from_a_plain_state_dict_too_and_none_is_said(tmp_path, caplog):
    network = nn.Conv2d(1, 1, 1)
    torch.save({"weight": torch.full((1, 1, 1, 1), 4.0), "bias": torch.zeros(1)}, tmp_path / "plain.pt")
    assert load_weights(network, tmp_path / "plain.pt").weight.item() == 4
    with caplog.at_level(logging.WARNING, logger="ct_cncl"):
        assert load_weights(network, None) is network
    assert "keeps its initial weights" in caplog.text
    assert network.weight.item() == 4
