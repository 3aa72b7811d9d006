"""``ct-cncl interpolate`` and ``ct-cncl train --stage`` as a user types them."""

import subprocess
import sys

import pytest
import torch
from tiny_runs import TINY, assignments
from typer.testing import CliRunner

from ct_cncl.pipeline.cli.app import app
from ct_cncl.pipeline.training.run import train_bundle


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def other(tiny_run, tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("other") / "run"
    overrides = TINY | {"max_epochs": 1, "start_from": str(tiny_run / "best.pt")}
    train_bundle(out=out, data=tiny_dataset, overlays=["gan_hinge"], assignments=assignments(overrides))
    return out


def test_interpolate(tiny_run, other, tmp_path):
    done = run("interpolate", tiny_run, other, "--alpha", "0.5", "--out", tmp_path / "mixed")
    assert done.exit_code == 0, done.output
    states = [
        torch.load(folder / "best.pt", weights_only=True)["network_def"]
        for folder in (tiny_run, other, tmp_path / "mixed")
    ]
    for name, value in states[2].items():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2)


def test_scan_prints_the_cost_of_every_alpha(tiny_run, other, tmp_path, monkeypatch):
    from ct_cncl.pipeline.interpolation import alpha_sweep as texture_scan

    judged = []

    def patches(reference):
        judged.append(reference)
        return [(0, 0), (0, 16), (24, 0), (24, 16)]

    monkeypatch.setattr(texture_scan, "uniform_patches", patches)
    arguments = ("interpolate", tiny_run, other, "--out", tmp_path / "mixed", "--scan", "3", "--device", "cpu")
    done = run(*arguments, "--max-slices", "1")
    assert done.exit_code == 0, done.output
    assert len(judged) == 1
    lines = done.output.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["input", "alpha 0.00", "alpha 0.50", "alpha 1.00"]
    assert all("dB (range 4096 HU)  NPS distance" in line for line in lines)
    assert {path.name for path in (tmp_path / "mixed").iterdir()} == {
        *("best.pt", "config.json", "trained_on.json", "interpolation.json", "curve.csv", "curve.svg")
    }


def test_an_error_is_one_line(tiny_run, tmp_path):
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "interpolate",
        str(tiny_run),
        str(tmp_path / "none"),
        "--out",
        str(tmp_path / "o"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Expected a checkpoint, but")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_stages(tiny_dataset, tmp_path):
    small = assignments(TINY | {"max_epochs": 1})
    out = tmp_path / "run"
    done = run("train", "--data", tiny_dataset, "--stage", "pixel_only", "--stage", "gan_lsgan", "--out", out, *small)
    assert done.exit_code == 0, done.output
    assert [(out / name / "last.pt").is_file() for name in ("1_pixel_only", "2_gan_lsgan")] == [True, True]
    assert run("train", "--resume", "--out", out).exit_code == 0


@pytest.mark.parametrize("command", ["interpolate", "train"])
def test_help_has_an_example(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f"ct-cncl {command}" in done.output
