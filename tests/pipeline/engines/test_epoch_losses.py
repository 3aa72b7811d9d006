import pytest
import torch
from ignite.engine import Engine, Events

from ct_cncl.pipeline.engines.epoch_losses import EpochLosses


def means(batches, epochs=1):
    """``epoch_losses`` at the end of each epoch, as a handler attached later sees it."""
    engine, seen = Engine(lambda engine, batch: {name: torch.tensor(value) for name, value in batch.items()}), []
    EpochLosses().attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(engine.state.epoch_losses))
    engine.run(batches, max_epochs=epochs)
    return seen


def test_means_over_the_iterations():
    assert means([{"loss": 1.0, "d": -3.0}, {"loss": 2.0, "d": 0.0}, {"loss": 6.0, "d": 6.0}]) == [
        {"loss": 3.0, "d": 1.0}
    ]


def test_every_epoch_for_itself():
    engine, seen = Engine(lambda engine, _: {"loss": torch.tensor(float(engine.state.epoch))}), []
    EpochLosses().attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(engine.state.epoch_losses["loss"]))
    engine.run([0, 0], max_epochs=3)
    assert seen == [1.0, 2.0, 3.0]


def test_a_term_of_some_iterations_is_averaged_over_those():
    assert means([{"loss": 1.0}, {"loss": 1.0, "loss_discriminator": 8.0}, {"loss": 1.0}]) == [
        {"loss": 1.0, "loss_discriminator": 8.0}
    ]


def test_many_small_terms_are_not_lost_beside_a_large_one():
    """In float32, 2^24 + 1 is 2^24."""
    (got,) = means([{"loss": 2.0**24}, *[{"loss": 1.0}] * 7])
    assert got["loss"] == (2**24 + 7) / 8


def test_nothing_is_known_before_the_first_epoch_is_complete():
    engine = Engine(lambda _engine, _batch: {})
    EpochLosses().attach(engine)
    assert engine.state.epoch_losses == {}
    engine.run([0])
    assert engine.state.epoch_losses == {}


def test_the_device_is_asked_once_an_epoch(monkeypatch):
    """A float of a tensor on CUDA would stall every iteration."""
    asked = []
    for name in ("item", "tolist", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, original=original, name=name: asked.append(name) or original(tensor)
        )
    means([{"loss": 1.0}] * 5, epochs=2)
    assert asked == ["tolist", "tolist"]


def test_a_nan_stays_visible():
    (got,) = means([{"loss": 1.0}, {"loss": float("nan")}])
    assert got["loss"] == pytest.approx(float("nan"), nan_ok=True)
