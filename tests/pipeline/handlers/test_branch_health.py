import csv
import logging
import math

import pytest
import torch
from handler_engines import evaluator_stub, scripted_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.handlers import BranchHealth, MetricsCSV
from ct_cncl.pipeline.handlers.branch_health import HEALTH_KEY, branch_warnings

ALL = ["content", "noise", "fused"]


def metrics(content, noise, fused, low_dose=40.0):
    return {"psnr": fused, "psnr_input": low_dose, "psnr_content": content, "psnr_denoised": noise}


def watch(validations, *, supervised=ALL, losses=None, after=0, handlers=(), then=None, **options):
    """BranchHealth over epochs with these validation metrics (None: not validated)."""
    evaluator = evaluator_stub()
    health = BranchHealth(evaluator, supervised=supervised, **options)
    found = {epoch: values for epoch, values in enumerate(validations, start=1) if values}
    said = []

    def note(engine):
        said.append(getattr(engine.state, HEALTH_KEY))
        if then is not None:
            then(engine)

    losses = losses or [{"loss": torch.tensor(1.0)}] * len(validations)
    trainer = scripted_training([health, *handlers], losses, metrics=found, evaluator=evaluator, after=after, then=note)
    return health, said, trainer


def test_a_healthy_training_gives_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        _, said, _ = watch([metrics(41, 42, 43), metrics(42, 41, 44), metrics(44, 43, 45)])
    assert said == ["", "", ""]
    assert not caplog.records


def test_a_branch_that_falls_below_the_input_while_the_result_scores_well(caplog):
    """What the research notes saw: nobody looked at the content."""
    with caplog.at_level(logging.WARNING):
        _, said, _ = watch([metrics(42, 42, 43), metrics(31, 43, 44), metrics(31, 43, 45)])
    assert said[0] == ""
    assert said[1] == said[2] == "C(y) is 9.0 dB below the input; C(y) is 11.0 dB below its own best"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "epoch 2, iteration 4: C(y) is 9.0 dB below the input" in caplog.records[0].getMessage()
    assert "raise the pixel weight of that branch" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (metrics(39.5, 43, 44), "C(y) is 0.5 dB below the input"),
        (metrics(43, 39, 44), "y - N(y) is 1.0 dB below the input; y - N(y) is 4.0 dB below its own best"),
        (metrics(43, 43, 38), "the result is 2.0 dB below the input; the result is 6.0 dB below its own best"),
    ],
)
def test_every_branch_is_watched(values, expected):
    _, said, _ = watch([metrics(42, 43, 44), values])
    assert said == ["", expected]


def test_a_branch_that_wobbles_about_the_input_is_not_worth_a_word():
    """Regression: networks that start at the input were warned of with "0.0 dB below the input" in every epoch."""
    _, said, _ = watch([metrics(40, 40, 40), metrics(39.95, 40.02, 39.92), metrics(39.85, 40, 40)])
    assert said == ["", "", "C(y) is 0.1 dB below the input"]


def test_an_unsupervised_branch_is_compared_with_itself_alone():
    """Behind a free fusion the paper's C(y) may have any scale."""
    _, said, _ = watch([metrics(12, 42, 43), metrics(14, 42, 43), metrics(10.5, 42, 43)], supervised=["noise", "fused"])
    assert said == ["", "", "C(y) is 3.5 dB below its own best"]


def test_max_drop_is_the_limit():
    for drop, expected in ((2.9, ""), (3.1, "y - N(y) is 3.1 dB below its own best")):
        assert watch([metrics(44, 46, 45), metrics(44, 46 - drop, 45)], max_drop=3.0)[1][1] == expected


def test_a_branch_that_never_reached_the_input_is_given_time():
    _, said, _ = watch([metrics(30 + k, 43, 44) for k in range(4)], patience=3)
    assert said == ["", "", "C(y) is 8.0 dB below the input", "C(y) is 7.0 dB below the input"]


def test_epochs_without_validation_say_nothing_and_do_not_count():
    _, said, _ = watch([metrics(30, 43, 44), None, None, metrics(31, 43, 44)], patience=3)
    assert said == ["", "", "", ""]


def test_an_input_without_noise_is_no_bar():
    """An autoencoder's input is its reference: infinite dB."""
    _, said, _ = watch([metrics(30, 30, 30, math.inf)] * 3, patience=1)
    assert said == ["", "", ""]


def test_the_loss_rises_within_an_epoch(caplog):
    """Seen long before the epoch is validated."""
    health = BranchHealth(evaluator_stub(), supervised=ALL, span=10)  # one look at iteration 10, the next at 20
    losses = [1.0] * 20 + [5.0] * 20
    number = iter(range(len(losses)))

    class Scripted:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_STARTED, self)

        def __call__(self, engine):
            k = next(number)
            epoch_losses.update(loss_content=torch.tensor(losses[k]), loss_noise=torch.tensor(1.0))

    epoch_losses = {}
    with caplog.at_level(logging.WARNING):
        scripted_training([Scripted(), health], [epoch_losses], iterations=40)
    assert len(caplog.records) == 1  # said once, not every time it is looked at
    assert "iteration 30: the loss of C(y) has risen to" in caplog.records[0].getMessage()
    assert health.found[0].startswith("the loss of C(y) has risen to 3.")


def test_losses_that_overflowed_are_left_out_of_the_averages():
    """Regression: after one that fp16 had skipped, the average was NaN for ever and branch health blind."""
    nan = {"loss_content": torch.tensor(float("nan")), "loss_noise": torch.tensor(1.0)}
    fine = {"loss_content": torch.tensor(1.0), "loss_noise": torch.tensor(1.0)}
    for losses in ([nan, fine, fine], [fine, nan, fine], [fine, nan, nan]):
        health, _, _ = watch([metrics(41, 42, 43)] * 3, losses=losses, span=2)
        assert {name: average.item() for name, average in health.averages.items()} == {"content": 1.0, "noise": 1.0}
        assert health.ratios == {"content": 1.0, "noise": 1.0}


def test_a_loss_that_stays_high_is_said_every_epoch_until_it_falls():
    """A branch that collapsed before the first validation has no better one to be compared with."""
    losses = [{"loss_content": torch.tensor(value)} for value in (1.0, 9.0, 9.0, 1.0, 1.0)]
    _, said, _ = watch([metrics(20, 43, 44)] * 5, losses=losses, span=2, patience=9)
    assert said == ["", *(f"the loss of C(y) has risen to {ratio} times its lowest" for ratio in (7.0, 8.5, 2.9)), ""]


def test_a_loss_that_stays_high_stops_the_training_too():
    losses = [{"loss_content": torch.tensor(value)} for value in (1.0, 9.0, 9.0)]
    _, said, trainer = watch([None] * 3, losses=losses, span=2, stop=True)
    assert len(said) == trainer.state.epoch == 2


def test_moving_average_equals_the_recursion():
    health, _, _ = watch([None] * 6, losses=[{"loss_fused": torch.tensor(float(n))} for n in range(6)], span=4)
    expected = 0.0
    for iteration in range(1, 13):  # two an epoch
        value = (iteration - 1) // 2
        expected += (value - expected) / min(iteration, 4)
    assert health.averages["fused"].item() == pytest.approx(expected, rel=1e-6)


def test_csv_and_tensorboard(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        evaluator = evaluator_stub()
        health = BranchHealth(evaluator, supervised=ALL, writer=writer, span=2)
        handlers = [health, MetricsCSV(tmp_path / "metrics.csv", data_range=4096, evaluator=evaluator)]
        found = {1: metrics(42, 42, 43), 2: metrics(31, 43, 44)}
        scripted_training(handlers, [{"loss_content": torch.tensor(2.0)}] * 2, metrics=found, evaluator=evaluator)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        column = [row["branch_health"] for row in csv.DictReader(stream)]
    assert column == ["", "C(y) is 9.0 dB below the input; C(y) is 11.0 dB below its own best"]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(s.step, s.value) for s in events.Scalars("branch_health/warnings")] == [(1, 0.0), (2, 2.0)]
    assert [(s.step, s.value) for s in events.Scalars("branch_health/average_loss_content")] == [(2, 2.0), (4, 2.0)]
    (text,) = events.Tensors("branch_health/text_summary")
    assert (text.step, text.tensor_proto.string_val[0].decode()) == (4, column[1])


def test_stop_ends_the_training_after_the_epoch():
    ended = []
    _, said, trainer = watch(
        [metrics(42, 42, 43), metrics(31, 43, 44), metrics(31, 43, 44)],
        stop=True,
        then=lambda e: ended.append(e.state.epoch),
    )
    assert ended == [1, 2]  # handlers after it, which save, still run
    assert trainer.state.epoch == 2
    assert len(said) == 2


def test_other_processes_watch_and_say_nothing(tmp_path, caplog):
    with SummaryWriter(tmp_path) as writer, caplog.at_level(logging.WARNING):
        _, said, _ = watch([metrics(42, 42, 43), metrics(31, 43, 44)], report=False, writer=writer, span=1)
    assert said[1]
    assert not caplog.records
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == []


def test_state_goes_into_a_resumed_run():
    """Best values and averages from before; the state is plain."""
    losses = [{"loss_content": torch.tensor(2.0)}] * 3
    first, _, _ = watch([metrics(42, 42, 43), metrics(43, 42, 43), metrics(42, 42, 43)], losses=losses, span=2)
    state = first.state_dict()
    second = BranchHealth(evaluator_stub(), supervised=ALL)
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert second.best == {"content": 43, "noise": 42, "fused": 43}
    assert (second.validations, second.lowest) == (3, {"content": 2.0})


@pytest.mark.parametrize("options", [{"supervised": ["denoised"]}, {"max_drop": 0.0}, {"max_rise": 1.0}, {"span": 0}])
def test_refused_options(options):
    with pytest.raises(ValueError, match="Expected"):
        BranchHealth(evaluator_stub(), **{"supervised": ALL} | options)


def test_patient_means_silence_only_about_the_input():
    best = {"content": 39.0}
    options = {"psnr_input": 40.0, "best": best, "supervised": ["content"], "max_drop": 3.0}
    assert branch_warnings({"content": 35.0}, patient=True, **options) == ["C(y) is 4.0 dB below its own best"]
    assert len(branch_warnings({"content": 35.0}, patient=False, **options)) == 2
