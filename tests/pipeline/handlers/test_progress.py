import io
import sys

import pytest
from ignite.engine import Engine, Events

from ct_cncl.pipeline.handlers import TrainingProgress


def trainer(handler, *, positions=None, step=None):
    """An engine whose loss is the number of the iteration; ``positions`` collects where the bar stands after each."""
    engine = Engine(step or (lambda engine, _batch: {"loss": float(engine.state.iteration)}))
    handler.attach(engine)
    if positions is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: positions.append(handler.bar.n))
    return engine


def test_one_bar_over_all_epochs(capsys):
    handler, positions = TrainingProgress(disable=False, interval=2), []
    trainer(handler, positions=positions).run([None] * 5, max_epochs=2)
    # Every second iteration, and at the end of the epoch, which comes after the last iteration of it.
    assert positions == [0, 2, 2, 4, 4, 6, 6, 8, 8, 10]
    assert (handler.bar.n, handler.bar.total, handler.bar.initial) == (10, 10, 0)
    assert handler.bar.postfix == "epoch=2, loss=10"
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert "10/10" in shown
    assert shown.endswith("\n")  # closed: what is printed next begins a line


def test_epoch_end_moves_the_bar_to_the_last_iteration():
    handler, ends = TrainingProgress(disable=False, interval=100), []
    engine = trainer(handler)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: ends.append((handler.bar.n, handler.bar.postfix)))
    engine.run([None] * 3, max_epochs=2)
    assert ends == [(3, "epoch=1, loss=3"), (6, "epoch=2, loss=6")]


def test_a_resumed_run_starts_where_it_was():
    handler = TrainingProgress(disable=False)
    engine = trainer(handler)
    engine.load_state_dict({"iteration": 6, "epoch_length": 3, "max_epochs": 4})
    engine.run([None] * 3, max_epochs=4)
    assert (handler.bar.initial, handler.bar.n, handler.bar.total) == (6, 12, 12)


def test_an_error_closes_the_bar_and_goes_on(capsys):
    def broken(engine, _batch):
        if engine.state.iteration == 3:
            raise FloatingPointError("in iteration 3")
        return {"loss": 1.0}

    handler = TrainingProgress(disable=False, interval=1)
    with pytest.raises(FloatingPointError, match="in iteration 3"):
        trainer(handler, step=broken).run([None] * 5, max_epochs=1)
    shown = capsys.readouterr().err
    assert "2/5" in shown
    assert shown.endswith("\n")


def test_ctrl_c_closes_the_bar_and_goes_on(capsys):
    def interrupted(_engine, _batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(TrainingProgress(disable=False), step=interrupted).run([None] * 5, max_epochs=1)
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_on_a_terminal_only(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    trainer(TrainingProgress()).run([None] * 3, max_epochs=1)
    assert ("3/3" in stream.getvalue()) == terminal
    assert terminal or stream.getvalue() == ""


def test_no_bar_where_it_is_switched_off(capsys):
    trainer(TrainingProgress(disable=True)).run([None] * 3, max_epochs=1)
    assert capsys.readouterr().err == ""


def test_an_engine_that_fails_before_it_starts_has_no_bar():
    engine = Engine(lambda _engine, _batch: None)
    engine.add_event_handler(Events.STARTED, lambda _: 1 / 0)
    TrainingProgress(disable=False).attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([None], max_epochs=1)
