"""Slices kept from an evaluation, and how long its forward passes took."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from ct_cncl.pipeline.handlers import ForwardSeconds, KeptSlices, forward_seconds

KEYS = ("image", "label", "content", "denoised", "pred")


def evaluation(handler, slices, step=lambda _number: None):
    """Evaluate ``slices`` slices twice; slice n of key k is full of 10 n + k."""

    def iteration(engine, number):
        step(number)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return {key: torch.full((1, 1, 3, 2), 10.0 * number + k) for k, key in enumerate(KEYS)}

    engine = Engine(iteration)
    engine.register_events(*IterationEvents)
    engine.state.device = torch.device("cpu")
    handler.attach(engine)
    engine.run(range(slices), max_epochs=1)


@pytest.mark.parametrize(
    ("slices", "count", "numbers"),
    [(9, 3, [1, 4, 7]), (10, 2, [2, 7]), (7, 1, [3]), (2, 3, [0, 1]), (4, 4, [0, 1, 2, 3])],
)
def test_slices_are_evenly_spaced_and_kept_in_full(tmp_path, slices, count, numbers):
    evaluation(KeptSlices(tmp_path / "kept.npz", count=count), slices)
    with np.load(tmp_path / "kept.npz") as kept:
        assert sorted(kept) == sorted(("number", *KEYS))
        assert kept["number"].tolist() == numbers
        for k, key in enumerate(KEYS):
            expected = np.array(numbers, dtype=np.float32)[:, None, None] * 10 + k
            np.testing.assert_array_equal(kept[key], np.broadcast_to(expected, (len(numbers), 3, 2)))


def test_refuses_none(tmp_path):
    with pytest.raises(ValueError, match="at least 1 slice, but got 0"):
        KeptSlices(tmp_path / "kept.npz", count=0)


def test_seconds_are_the_median_of_forward_passes(tmp_path, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(forward_seconds, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def step(number):
        now[0] += (9.0, 0.25, 0.5)[number]

    evaluation(ForwardSeconds(tmp_path / "seconds.json"), 3, step)
    written = json.loads((tmp_path / "seconds.json").read_text())
    assert written == {"seconds": 0.5, "slices": 3, "device": "cpu", "threads": torch.get_num_threads()}
