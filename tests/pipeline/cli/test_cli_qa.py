import re

import pytest
from tiny_weights import Add, scripted


def test_weights_are_tested_on_phantoms(command, tmp_path):
    weights = scripted(Add(20.0), tmp_path / "plus20.ts")
    arguments = (
        "qa",
        "--weights",
        weights,
        "--out",
        tmp_path / "qa",
        "--size",
        128,
        "--pixel-mm",
        1.5,
        "--device",
        "cpu",
    )
    code, text, errors = command(*arguments, "--doses", "0.5", "--slices", 4)
    assert code == 0, errors
    assert "plus20 at dose 0.5: noise" in text
    assert "largest HU deviation +2" in text  # 20 HU, give or take the noise
    assert (tmp_path / "qa" / "report.html").is_file()
    assert "plus20" in (tmp_path / "qa" / "linearity.csv").read_text()
    code, _, errors = command(*arguments, "--doses", "0.5", "--slices", 4)
    assert code != 0
    assert "--overwrite" in errors


def test_the_scan_has_the_noise_and_the_kernel_that_are_asked_for(command, tmp_path):
    """0.14/mm with the default cut-off and pixel size; a cut-off at 0.4 of Nyquist ends at 0.13/mm."""
    weights = scripted(Add(0.0), tmp_path / "same.ts")
    size = ("--size", 128, "--pixel-mm", 1.5, "--slices", 4, "--doses", 1, "--device", "cpu")
    scan = ("--noise-hu", 30, "--cutoff", 0.4)
    code, text, errors = command("qa", "--weights", weights, "--out", tmp_path / "qa", *size, *scan)
    assert code == 0, errors
    said = re.search(r"noise ([\d.]+) HU of \1, its mean frequency ([\d.]+) of \2/mm", text)
    assert float(said[1]) == pytest.approx(30, rel=0.2)
    assert 0.04 < float(said[2]) < 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--doses", "a"), "dose fractions separated by commas"),
        (("--doses", "2"), "above 0 and up to 1"),
        (("--slices", "1"), "at least 4 slices"),
        (("--weights", "nothing.pt"), "nothing.pt"),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, arguments, words):
    code, _, errors = command("qa", "--out", tmp_path / "qa", *arguments)
    assert code != 0
    assert words in errors
    assert errors.count("error: ") == 1
    assert not (tmp_path / "qa").exists()
