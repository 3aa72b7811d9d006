"""Gradient norms against the steps that plain gradient descent takes, and the speed by a clock that is set by hand."""

from itertools import pairwise

import pytest
import torch
from ignite.engine import Events
from scaled_trainer import MAXIMUM, network, trainer, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.handlers import StepFigures, step_figures


def trained(folder, *, interval=1, **options):
    """The points that a training writes, by tag, as (step, value), and how far each step went over the learning rate."""
    generator = network()
    engine = trainer(generator, **options)
    places = [weights(generator)]
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: places.append(weights(generator)))
    with SummaryWriter(folder) as writer:
        StepFigures(writer, interval=interval).attach(engine)
        engine.run()
    events = EventAccumulator(str(folder)).Reload()
    points = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return points, [float((after - before).norm()) / 1e-4 for before, after in pairwise(places)]


@pytest.mark.parametrize("g_scale", [None, 1024.0])
def test_the_norm_is_how_far_a_step_of_plain_gradient_descent_goes(tmp_path, g_scale):
    points, steps = trained(tmp_path, iterations=3, g_scale=g_scale)
    assert [step for step, _ in points["gradient_norm"]] == [1, 2, 3]
    assert [norm for _, norm in points["gradient_norm"]] == pytest.approx(steps, rel=1e-2)
    assert min(steps) > 1


def test_it_is_taken_before_the_gradient_is_clipped(tmp_path):
    free, _ = trained(tmp_path / "free")
    clipped, (step,) = trained(tmp_path / "clipped", clip_grad_norm=0.5)
    assert clipped["gradient_norm"] == free["gradient_norm"]
    assert step == pytest.approx(0.5, rel=1e-2)


def test_an_overflow_of_fp16_leaves_no_point_and_ends_nothing(tmp_path):
    """Its scaler skips such steps; an infinite norm is no loss that is not finite."""
    points, steps = trained(tmp_path, g_scale=MAXIMUM, iterations=30)
    first = next(number for number, step in enumerate(steps, start=1) if step > 0)
    assert first > 3
    assert [step for step, _ in points["gradient_norm"]] == list(range(first, 31))


def test_every_tenth_iteration(tmp_path):
    points, _ = trained(tmp_path, interval=10, iterations=25)
    assert [step for step, _ in points["gradient_norm"]] == [10, 20]


def test_the_speed_counts_the_patches_of_all_processes_and_steps_alone(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(step_figures.time, "perf_counter", lambda: clock[0])
    monkeypatch.setenv("WORLD_SIZE", "2")
    generator = network()
    engine = trainer(generator, iterations=6)
    engine.add_event_handler(Events.ITERATION_STARTED, lambda _: clock.__setitem__(0, clock[0] + 0.5))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: clock.__setitem__(0, clock[0] + 100))  # validation
    with SummaryWriter(tmp_path) as writer:
        StepFigures(writer).attach(engine)
        engine.run()
    (point,) = EventAccumulator(str(tmp_path)).Reload().Scalars("patches_per_second")
    assert (point.step, point.value) == (1, pytest.approx(4))  # 6 patches of each of 2 processes in 3 s


def test_processes_that_do_not_write_do_without(monkeypatch):
    engine = trainer(network())
    StepFigures(None).attach(engine)
    engine.run()
    monkeypatch.setenv("RANK", "1")
    handler = StepFigures(SummaryWriter.__new__(SummaryWriter))
    handler.attach(engine)
    assert not engine.has_event_handler(handler.epoch_completed, Events.EPOCH_COMPLETED)
    assert torch.isfinite(engine.state.output["loss"])
