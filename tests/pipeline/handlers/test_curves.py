import csv
import itertools

import pytest
import torch
from handler_engines import evaluator_stub, scripted_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.handlers import LearningRateLogger, MetricsCSV, curves, loss_terms


def optimizer(rate):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every look at the clock is 1.5 s later than the last."""
    ticks = itertools.count(10.0, 1.5)
    monkeypatch.setattr(curves.time, "perf_counter", lambda: next(ticks))


def test_the_file_as_a_person_opens_it(tmp_path):
    evaluator = evaluator_stub()
    handler = MetricsCSV(
        tmp_path / "run" / "metrics.csv",
        data_range=4096,
        evaluator=evaluator,
        optimizers={"generator": optimizer(2e-4), "discriminator": optimizer(0.5), "none": None},
    )
    losses = [{"loss": 12.3456789, "d_real": -0.25}, {"loss": 1e-9, "d_real": 100000.0}]
    metrics = {1: {"psnr": 40.1234567, "rmse": 7.0}, 2: {"psnr": 41.0, "rmse": 1 / 3}}
    scripted_training([handler], losses, metrics=metrics, evaluator=evaluator, iterations=3)
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines() == [
        "epoch,iteration,seconds,lr_generator,lr_discriminator,loss,d_real,data_range_hu,psnr,rmse",
        "1,3,1.5,0.0002,0.5,12.3457,-0.25,4096,40.12346,7.00000",
        "2,6,1.5,0.0002,0.5,1e-09,100000,4096,41.00000,0.33333",
    ]


def test_the_file_is_whole_after_every_epoch(tmp_path):
    seen = []
    handler = MetricsCSV(tmp_path / "m.csv", data_range=400)
    losses = [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}]
    scripted_training([handler], losses, then=lambda _: seen.append([row["loss"] for row in rows(tmp_path / "m.csv")]))
    assert seen == [["1"], ["1", "2"], ["1", "2", "3"]]
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_metrics_stand_only_beside_the_epochs_that_were_validated(tmp_path):
    evaluator = evaluator_stub()
    handler = MetricsCSV(tmp_path / "m.csv", data_range=400, evaluator=evaluator)
    scripted_training(
        [handler], [{"loss": 1.0}] * 5, metrics={2: {"psnr": 20.0}, 4: {"psnr": 30.0}}, evaluator=evaluator
    )
    got = [(row["psnr"], row["data_range_hu"]) for row in rows(tmp_path / "m.csv")]
    assert got == [("", ""), ("20.00000", "400"), ("", ""), ("30.00000", "400"), ("", "")]


def test_a_term_that_comes_later_gets_a_column_and_leaves_earlier_rows_empty(tmp_path):
    losses = [{"loss": 1.0}, {"loss": 2.0, "loss_discriminator": 3.0}, {"loss": 4.0}]
    scripted_training([MetricsCSV(tmp_path / "m.csv", data_range=400)], losses)
    assert [row["loss_discriminator"] for row in rows(tmp_path / "m.csv")] == ["", "3", ""]
    assert [row["loss"] for row in rows(tmp_path / "m.csv")] == ["1", "2", "4"]


def test_learning_rates_are_those_the_epoch_was_trained_with(tmp_path):
    own = optimizer(0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(own, gamma=0.5)
    own.step()
    handler = MetricsCSV(tmp_path / "m.csv", data_range=400, optimizers={"g": own})
    scripted_training([handler], [{"loss": 1.0}] * 3, then=lambda _: scheduler.step())
    assert [float(row["lr_g"]) for row in rows(tmp_path / "m.csv")] == pytest.approx([0.1, 0.05, 0.025])


def test_resume_keeps_the_rows_before_and_replaces_those_trained_again(tmp_path):
    """Killed in epoch 4, the last checkpoint of epoch 2: rows 1 and 2 stay to the letter, 3 and 4 come anew."""
    path = tmp_path / "m.csv"
    scripted_training(
        [MetricsCSV(path, data_range=400)], [{"loss": 1.5}, {"loss": 2.5}, {"loss": -3.0}, {"loss": -4.0}]
    )
    before = path.read_text().splitlines()
    scripted_training(
        [MetricsCSV(path, data_range=400)], [{"loss": 9.0}] * 2 + [{"loss": n} for n in (3, 4, 5)], after=2
    )
    after = path.read_text().splitlines()
    assert after[:3] == before[:3]
    assert after[3:] == ["3,6,1.5,3", "4,8,1.5,4", "5,10,1.5,5"]


def test_resume_twice_neither_doubles_nor_loses_rows(tmp_path):
    path = tmp_path / "m.csv"
    for after, last in ((0, 3), (3, 4), (3, 6)):
        scripted_training([MetricsCSV(path, data_range=400)], [{"loss": n} for n in range(1, last + 1)], after=after)
    assert [(row["epoch"], row["loss"]) for row in rows(path)] == [(str(n), str(n)) for n in range(1, 7)]


def test_resume_keeps_columns_that_only_earlier_epochs_had(tmp_path):
    path, evaluator = tmp_path / "m.csv", evaluator_stub()
    first = MetricsCSV(path, data_range=400, evaluator=evaluator)
    scripted_training([first], [{"loss": 1.0}], metrics={1: {"psnr": 20.0}}, evaluator=evaluator)
    scripted_training([MetricsCSV(path, data_range=400)], [{"loss": 1.0}, {"loss": 2.0}], after=1)
    assert [row["psnr"] for row in rows(path)] == ["20.00000", ""]


def test_a_new_run_starts_its_own_file(tmp_path):
    """A run killed before its first checkpoint leaves rows, and nothing to resume."""
    path = tmp_path / "m.csv"
    scripted_training([MetricsCSV(path, data_range=400)], [{"loss": 1.0}, {"loss": 2.0}])
    scripted_training([MetricsCSV(path, data_range=400)], [{"loss": 7.0}])
    assert [(row["epoch"], row["loss"]) for row in rows(path)] == [("1", "7")]


def test_resume_without_the_file_goes_on_with_what_there_is(tmp_path):
    scripted_training([MetricsCSV(tmp_path / "m.csv", data_range=400)], [{"loss": 1.0}] * 3, after=2)
    assert [row["epoch"] for row in rows(tmp_path / "m.csv")] == ["3"]


def test_learning_rates_in_tensorboard(tmp_path):
    generator, discriminator = optimizer(0.1), optimizer(0.3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(generator, gamma=0.5)
    generator.step()
    with SummaryWriter(tmp_path) as writer:
        handler = LearningRateLogger(writer, {"generator": generator, "discriminator": discriminator, "none": None})
        scripted_training([handler], [{"loss": 1.0}] * 3, then=lambda _: scheduler.step())
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["lr/discriminator", "lr/generator"]
    for name, rates in (("generator", [0.1, 0.05, 0.025]), ("discriminator", [0.3] * 3)):
        scalars = events.Scalars(f"lr/{name}")
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx(rates)


def test_loss_terms_are_floats_by_name():
    terms = loss_terms({"loss": torch.tensor(1.5), "d_real": torch.tensor(-2.0)})
    assert terms == {"loss": 1.5, "d_real": -2.0}
    assert all(type(value) is float for value in terms.values())
