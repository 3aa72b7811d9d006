import logging

import pytest
import torch
from ignite.engine import Engine

from ct_cncl.pipeline.handlers import pace
from ct_cncl.pipeline.handlers.pace import Pace


class Clock:
    """Stands still but for what steps take."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def said(monkeypatch, caplog, *, seconds, iterations, epochs, batch=4):
    """What is logged of a training whose steps take ``seconds``, the first three ten times that."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)

    def step(engine, _batch):
        clock.now += seconds * (10 if engine.state.iteration <= 3 else 1)

    engine = Engine(step)
    Pace().attach(engine)
    with caplog.at_level(logging.INFO, logger="ct_cncl"):
        engine.run([{"image": torch.zeros(batch, 1, 2, 2)}] * iterations, max_epochs=epochs)
    return [record.getMessage() for record in caplog.records if record.name.startswith("ct_cncl")]


@pytest.mark.parametrize(
    ("seconds", "iterations", "expected"),
    [
        (
            0.5,
            1000,
            "8 patches/s on this machine: about 83 minutes to the end of epoch 10",
        ),  # 9987 steps of half a second
        (1.0, 30, "4 patches/s on this machine: about 5 minutes to the end of epoch 10"),
    ],
)
def test_the_first_steps_say_how_long_it_takes_once(monkeypatch, caplog, seconds, iterations, expected):
    (line,) = said(monkeypatch, caplog, seconds=seconds, iterations=iterations, epochs=10)
    assert line == f"{expected}, without validation and checkpoints."


def test_short_trainings_say_nothing(monkeypatch, caplog):
    assert said(monkeypatch, caplog, seconds=0.5, iterations=20, epochs=2) == []
    assert said(monkeypatch, caplog, seconds=0.001, iterations=100, epochs=2) == []
