"""Which epochs are validated: every few, and always the last."""

import csv

import pytest
from ignite.engine import Engine
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.handlers import BudgetSchedule, Validation
from ct_cncl.pipeline.training.run import train_bundle


class Evaluator:
    """Remembers the epochs in which it ran."""

    def __init__(self):
        self.epochs = []

    def run(self, global_epoch):
        self.epochs.append(global_epoch)


@pytest.mark.parametrize(
    ("epochs", "interval", "validated"),
    [(4, 2, [2, 4]), (3, 2, [2, 3]), (3, 1, [1, 2, 3]), (12, 5, [5, 10, 12]), (2, 10, [2]), (1, 1, [1])],
)
def test_every_few_epochs_and_the_last(epochs, interval, validated):
    evaluator, trainer = Evaluator(), Engine(lambda engine, batch: None)
    Validation(evaluator, interval).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert evaluator.epochs == validated


def test_the_last_epoch_of_a_budget():
    """25 iterations end within the third epoch of ten; at the start, nobody knows that it is the last."""
    evaluator, trainer = Evaluator(), Engine(lambda engine, batch: None)
    BudgetSchedule({}, iterations=25).attach(trainer)
    Validation(evaluator, 2).attach(trainer)
    trainer.run([None] * 10, max_epochs=1)
    assert evaluator.epochs == [2, 3]


def test_a_run_validates_its_last_state(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    values = TINY | {"max_epochs": 3, "val_interval": 2}
    train_bundle(out=run, data=tiny_dataset, assignments=assignments(values))
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [bool(row["psnr"]) for row in rows] == [False, True, True]
