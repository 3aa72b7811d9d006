import json

import pytest
from evaluation_files import three_patients


def test_files_are_judged_and_the_table_is_printed(command, tmp_path):
    root = three_patients(tmp_path)
    out = tmp_path / "report"
    arguments = ("evaluate", root / "full", root / "denoised", "--input", root / "low", "--out", out)
    code, text, errors = command(*arguments, "--windows", "abdomen,lungs=-600/1200", "--slices", 2)
    assert code == 0, errors
    assert "PSNR abdomen dB" in text
    assert "dB against the input" in text
    for name in ("slices.csv", "patients.csv", "summary.csv", "comparisons.csv", "curves.csv", "report.html"):
        assert (out / name).is_file()
    record = json.loads((out / "evaluation.json").read_text())
    assert "--windows abdomen,lungs=-600/1200" in record["provenance"]["command"]
    assert "lungs -600/1200 HU" in record["provenance"]["data_range"]
    code, _, errors = command(*arguments)
    assert code != 0
    assert errors.count("error: ") == 1
    assert "--overwrite" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("full", "denoised"), "Pass --out"),
        (("full", "denoised", "--out", "o", "--split", "test"), "--split needs a run"),
        (("full", "denoised", "--out", "o", "--windows", ""), "at least one window"),
        (("full", "denoised", "--out", "o", "--region", "head"), "Expected region to be"),
        (("full", "denoised", "low", "--out", "o", "--name", "one"), "name for each of 2"),
        (("full", "denoised", "--out", "o", "--label-names", "n.json"), "Add --labels"),
        (("full", "denoised", "--out", "o", "--labels", "full"), "whole numbers of 0 or more as labels"),
    ],
)
def test_options_that_do_not_go_together(command, tmp_path, monkeypatch, arguments, words):
    three_patients(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("evaluate", *arguments)
    assert code != 0
    assert words in errors
    assert "Traceback" not in errors


def test_file_options_are_refused_for_a_run(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    code, _, errors = command("evaluate", tmp_path / "run", "--input", tmp_path, "--out", tmp_path / "o")
    assert code != 0
    assert "--input cannot be combined with a run" in errors
    code, _, errors = command("evaluate", tmp_path / "run", "--labels", tmp_path, "--out", tmp_path / "o")
    assert code != 0
    assert "--labels cannot be combined with a run" in errors
