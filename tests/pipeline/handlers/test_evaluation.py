import csv
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from ct_cncl.pipeline.handlers import EvaluationTable, WrittenFiles
from ct_cncl.pipeline.metrics import quality_metrics
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series.write import WriteReport

ERRORS = {"image": (8.0, 16.0, 32.0), "content": (4.0, 4.0, 8.0), "denoised": (2.0, 1.0, 4.0), "pred": (1.0, 2.0, 1.0)}
"""HU by which each image is off, in each of three slices: their RMSE."""


def batch(number):
    generator = torch.Generator().manual_seed(number)
    reference = torch.randint(-1000, 1000, (1, 1, 16, 12), generator=generator).float()
    return {"label": reference} | {name: reference + errors[number] for name, errors in ERRORS.items()}


def evaluate(handler, data_range=4096):
    engine = Engine(lambda _engine, number: batch(number))
    engine.state.metric_details = {}
    for name, metric in quality_metrics(data_range).items():
        metric.attach(engine, name)
    handler.attach(engine)
    engine.run([0, 1, 2])


def test_slices_and_summary(tmp_path):
    evaluate(EvaluationTable(tmp_path / "out", data_range=4096))
    with (tmp_path / "out" / "slices.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slice"] for row in rows] == ["0", "1", "2"]
    assert {row["data_range_hu"] for row in rows} == {"4096"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["data_range_hu"], summary["slices"]) == (4096, 3)
    for suffix, name in (("", "pred"), ("_input", "image"), ("_content", "content"), ("_denoised", "denoised")):
        errors = torch.tensor(ERRORS[name])
        assert [float(row[f"rmse{suffix}"]) for row in rows] == pytest.approx(errors.tolist(), rel=1e-5)
        decibels = 20 * torch.log10(4096 / errors)
        assert [float(row[f"psnr{suffix}"]) for row in rows] == pytest.approx(decibels.tolist(), rel=1e-5)
        assert summary["means"][f"rmse{suffix}"] == pytest.approx(errors.mean().item(), rel=1e-5)
        assert summary["means"][f"psnr{suffix}"] == pytest.approx(decibels.mean().item(), rel=1e-5)
        structures = [float(row[f"ssim{suffix}"]) for row in rows]
        assert summary["means"][f"ssim{suffix}"] == pytest.approx(sum(structures) / 3, rel=1e-6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["slices.csv", "summary.json"]


def test_the_table_is_logged_with_the_means_in_their_places(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="ct_cncl"):
        evaluate(EvaluationTable(tmp_path, data_range=4096))
    means = json.loads((tmp_path / "summary.json").read_text())["means"]
    lines = [record for record in caplog.records if record.name.startswith("ct_cncl")][-1].getMessage().splitlines()
    assert lines[0] == "Evaluation, mean over 3 slices, range 4096 HU"
    assert lines[1].split() == ["PSNR", "dB", "SSIM", "RMSE", "HU"]
    for line, name, suffix in zip(
        lines[2:6], ("input", "C(y)", "y - N(y)", "result"), ("_input", "_content", "_denoised", "")
    ):
        assert line.startswith(name)
        figures = [f"{means['psnr' + suffix]:.2f}", f"{means['ssim' + suffix]:.4f}", f"{means['rmse' + suffix]:.2f}"]
        assert line.removeprefix(name).split() == figures
    assert lines[6] == f"Written to {tmp_path}."


def test_an_earlier_evaluation_is_kept_unless_it_may_be_replaced(tmp_path):
    evaluate(EvaluationTable(tmp_path, data_range=4096))
    before = (tmp_path / "summary.json").read_text()
    with pytest.raises(OutputError, match="--overwrite"):
        EvaluationTable(tmp_path, data_range=400)
    assert (tmp_path / "summary.json").read_text() == before
    evaluate(EvaluationTable(tmp_path, data_range=400, overwrite=True), data_range=400)
    assert json.loads((tmp_path / "summary.json").read_text())["data_range_hu"] == 400


@pytest.mark.parametrize(("terminal", "progress"), [(True, True), (True, False), (False, True)])
def test_a_bar_over_the_slices_on_a_terminal(tmp_path, monkeypatch, capsys, terminal, progress):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    evaluate(EvaluationTable(tmp_path, data_range=4096, progress=progress))
    shown = capsys.readouterr().err
    assert ("3/3" in shown) == (terminal and progress)
    assert shown == "" or shown.endswith("\n")


def test_written_files_are_logged_once_each_with_what_was_clipped(caplog):
    saver = SimpleNamespace(reports=[])
    engine = Engine(lambda _engine, reports: saver.reports.extend(reports))
    WrittenFiles(saver).attach(engine)
    common = {"slope": 1.0, "inter": 0.0, "voxels": 100}
    first = WriteReport(path=Path("out/a.nii"), dtype="int16", clipped=0, **common)
    second = WriteReport(path=Path("out/b.nii"), dtype="uint8", clipped=7, **common)
    third = WriteReport(path=Path("out/c.nii"), dtype=">i2", clipped=0, **common)
    counts = []
    with caplog.at_level(logging.INFO, logger="ct_cncl"):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: counts.append(len(caplog.records)))
        engine.run([[first], [], [second, third]])
    assert counts[0] == counts[1]
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ct_cncl")]
    assert lines == [
        "Wrote out/a.nii (int16).",
        "Wrote out/b.nii (uint8; 7 of 100 voxels clipped to its range).",
        "Wrote out/c.nii (>i2).",
    ]
