"""A budget of minutes or iterations: what counts, what the learning rates do, where it ends and how it goes on."""

import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from ct_cncl.pipeline.handlers import BudgetSchedule, budget


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def passes(self, seconds):
        self.now += seconds


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates])


def resume(engine, optimizers, state):
    engine.load_state_dict(state)
    for optimizer in optimizers:  # gives it new parameter groups
        stale = optimizer.state_dict()
        stale["param_groups"][0]["lr"] = 1e-9
        optimizer.load_state_dict(stale)


def training(schedule, *, step=lambda: None, validation=lambda: None, state=None, epoch_length=10, until=None):
    """Train by ``schedule``; returns the engine, the number of validations and the learning rates of all iterations."""
    rates, ends = [], []

    def iteration(engine, _batch):
        rates.append([group["lr"] for optimizer in schedule.optimizers for group in optimizer.param_groups])
        step()

    engine = Engine(iteration)
    if state is not None:  # as the handler Checkpoints does, before the schedule's own start
        engine.add_event_handler(Events.STARTED, lambda _: resume(engine, schedule.optimizers, state))
    schedule.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: (ends.append(engine.state.iteration), validation()))
    if until is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=until), engine.terminate)
    engine.run([None] * epoch_length, max_epochs=1)
    return engine, ends, rates


def test_iterations_end_within_an_epoch_which_is_completed():
    engine, ends, _ = training(BudgetSchedule({}, iterations=25))
    assert (engine.state.iteration, engine.state.epoch, engine.state.max_epochs) == (25, 3, 3)
    assert ends == [10, 20, 25]
    assert engine.state.budget_used == 1.0


@pytest.mark.parametrize("iterations", [1, 10, 20])
def test_iterations_end_at_the_end_of_an_epoch_without_another(iterations):
    engine, ends, _ = training(BudgetSchedule({}, iterations=iterations))
    assert ends[-1] == engine.state.iteration == iterations
    assert len(ends) == math.ceil(iterations / 10)


def test_learning_rates_fall_by_a_half_cosine_each_from_its_own():
    first, second = optimizer(0.5, 0.1), optimizer(2.0)
    _, _, rates = training(BudgetSchedule({"a": first, "none": None, "b": second}, iterations=12))
    for done, found in enumerate(rates):
        factor = 0.5 + 0.5 * math.cos(math.pi * done / 12)
        assert found == pytest.approx([0.5 * factor, 0.1 * factor, 2.0 * factor], rel=1e-12)
    assert rates[0] == [0.5, 0.1, 2.0]
    assert rates[-1][0] < 0.01  # not cut off at a high rate


def test_minutes_count_training_alone(monkeypatch):
    clock = Clock(monkeypatch)
    engine, ends, rates = training(
        BudgetSchedule({"a": optimizer(1.0)}, minutes=1.0),
        step=lambda: clock.passes(2.5),
        validation=lambda: clock.passes(500.0),
    )
    assert engine.state.training_seconds == pytest.approx(60.0)
    assert engine.state.iteration == 24
    assert ends == [10, 20, 24]
    shares = [2.5 * n / 60 for n in range(24)]
    assert [rate for (rate,) in rates] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * s) for s in shares])


def test_a_slow_step_oversteps_the_minutes_once(monkeypatch):
    clock = Clock(monkeypatch)
    engine, _, rates = training(BudgetSchedule({"a": optimizer(1.0)}, minutes=1.0), step=lambda: clock.passes(35.0))
    assert (engine.state.iteration, engine.state.training_seconds, engine.state.budget_used) == (2, 70.0, 1.0)
    assert rates[1][0] == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 35 / 60))


def test_epochs_expected_of_minutes_are_those_that_come(monkeypatch):
    clock, expected = Clock(monkeypatch), []
    engine = Engine(lambda _engine, _batch: clock.passes(1.0))
    BudgetSchedule({}, minutes=1.0).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: expected.append(e.state.max_epochs))
    engine.run([None] * 10, max_epochs=1)
    assert expected == [6] * 6


@pytest.mark.parametrize("options", [{"minutes": 1.0}, {"iterations": 30}])
def test_a_resumed_run_has_the_rest_of_the_budget(monkeypatch, options):
    clock = Clock(monkeypatch)
    first, _, before = training(
        BudgetSchedule({"a": optimizer(1.0)}, **options), step=lambda: clock.passes(2.0), until=2
    )
    assert first.state.iteration == 20
    clock.passes(9999.0)  # between the two
    state = first.state_dict()
    assert state["training_seconds"] == pytest.approx(40.0)
    second, ends, after = training(
        BudgetSchedule({"a": optimizer(1.0)}, **options), step=lambda: clock.passes(2.0), state=state
    )
    assert second.state.iteration == 30
    assert ends == [30]
    assert second.state.training_seconds == pytest.approx(60.0)
    whole = [0.5 + 0.5 * math.cos(math.pi * n / 30) for n in range(30)]
    assert [rate for (rate,) in before + after] == pytest.approx(whole)


@pytest.mark.parametrize("options", [{"minutes": 0.5}, {"iterations": 15}])
def test_a_finished_run_is_not_trained_on(monkeypatch, options):
    clock = Clock(monkeypatch)
    first, _, _ = training(BudgetSchedule({}, **options), step=lambda: clock.passes(2.0))
    assert first.state.iteration == 15
    second, ends, _ = training(BudgetSchedule({}, **options), step=lambda: clock.passes(2.0), state=first.state_dict())
    assert ends == []
    assert second.state.iteration == 15


@pytest.mark.parametrize("options", [{}, {"minutes": 1.0, "iterations": 1}])
def test_refuses_none_and_both(options):
    with pytest.raises(ValueError, match="Expected either minutes or iterations"):
        BudgetSchedule({}, **options)


@pytest.mark.parametrize("options", [{"minutes": 0.0}, {"minutes": -1.0}, {"iterations": 0}, {"minutes": math.nan}])
def test_refuses_no_budget(options):
    with pytest.raises(ValueError, match="Expected a positive budget"):
        BudgetSchedule({}, **options)


def test_refuses_minutes_where_clocks_differ(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="Expected a budget in iterations for 2 processes"):
        BudgetSchedule({}, minutes=1.0)
    BudgetSchedule({}, iterations=1)
