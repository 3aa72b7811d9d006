"""What train.json's values do to a run, seen in what the run leaves behind."""

import csv
import math

import pytest
import torch
from tiny_runs import TINY, same

from ct_cncl.pipeline.common.checkpoint_file import load_file
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow

RUN = TINY | {"max_epochs": 4, "val_interval": 2, "device": "$torch.device('cpu')"}


def train(folder, dataset, **changes):
    overrides = RUN | {"dataset_dir": str(dataset), "output_dir": str(folder)} | changes
    run_workflow(build_workflow([config_file("train.json")], run_id="training", overrides=overrides))
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream)), load_file(folder / "last.pt"), load_file(folder / "best.pt")


@pytest.fixture(scope="module")
def plain(tiny_dataset, tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain") / "run", tiny_dataset)


@pytest.fixture(scope="module")
def changed(tiny_dataset, tmp_path_factory):
    values = {
        "learning_rate": 0.003,
        "adversarial#optimizer#lr": 0.0005,
        "validate#data_range_hu": 400,
        "ema#decay": 0.5,
        "adversarial#weight": 0.0625,
    }
    return train(tmp_path_factory.mktemp("changed") / "run", tiny_dataset, **values)


def test_each_network_learns_at_its_own_rate(changed):
    rows, _, _ = changed
    assert len(rows) == 4
    assert {(float(row["lr_generator"]), float(row["lr_discriminator"])) for row in rows} == {(0.003, 0.0005)}


def test_validation_comes_every_second_epoch_over_the_range_that_is_named(plain, changed):
    for (rows, _, _), data_range in ((plain, 4096), (changed, 400)):
        assert [bool(row["psnr"]) for row in rows] == [False, True, False, True]
        for row in rows[1::2]:
            assert float(row["data_range_hu"]) == data_range
            # Slices differ a little: PSNR is the mean of theirs, which the mean RMSE gives to a tenth of a dB.
            assert float(row["psnr"]) == pytest.approx(20 * math.log10(data_range / float(row["rmse"])), abs=0.3)


def test_the_loss_is_the_sum_of_its_weighted_terms(plain, changed):
    for rows, _, _ in (plain, changed):
        for row in rows:
            total = sum(float(row[f"loss_{name}"]) for name in ("content", "noise", "fused", "adversarial"))
            assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
    ratio = float(changed[0][0]["loss_adversarial"]) / float(plain[0][0]["loss_adversarial"])
    assert 0.03 < ratio < 0.12  # 0.0625, but for what the networks learned meanwhile


def test_what_ships_is_the_average_where_one_is_kept(plain, changed):
    _, last, best = plain
    assert not last["ema"]
    assert same(best["network_def"], last["network_def"]) or float(plain[0][3]["psnr"]) < float(plain[0][1]["psnr"])
    _, last, best = changed
    assert last["ema"].keys() == last["network_def"].keys()
    assert not same(last["ema"], last["network_def"])
    if float(changed[0][3]["psnr"]) > float(changed[0][1]["psnr"]):
        assert same(best["network_def"], last["ema"])


def test_a_discriminator_that_starts_later_is_the_one_that_began(tiny_dataset, tmp_path):
    short = {"max_epochs": 1, "val_interval": 1}
    late = {"adversarial#d_start": 1000, "adversarial#start": 1000}
    _, waits, _ = train(tmp_path / "waits", tiny_dataset, **short, **late)
    _, longer, _ = train(tmp_path / "longer", tiny_dataset, max_epochs=2, val_interval=1, **late)
    _, steps, _ = train(tmp_path / "steps", tiny_dataset, **short)
    assert same(waits["discriminator"], longer["discriminator"])
    assert not same(waits["network_def"], longer["network_def"])
    assert not same(waits["discriminator"], steps["discriminator"])
    assert all(torch.isfinite(value).all() for value in steps["discriminator"].values())
