"""examples/own_parts all the way: trained without PYTHONPATH, evaluated, used, tested, packed; nothing imported before it is trusted."""

import os
import shutil
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_runs import ROOT

from ct_cncl.pipeline import denoise
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.sharing.verify import review_source

EXAMPLE = ROOT / "examples" / "own_parts"
pytestmark = pytest.mark.slow


def run(cwd, *arguments, code=0):
    """A process of its own: nothing here has imported the module."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from ct_cncl.pipeline.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    """A run of the example, whose overlay is gone."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(EXAMPLE, folder / "parts", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["max_epochs=1", "patches.size=32", "patches.per_epoch=8", "batch_size=2", "device=cpu"]
    said = run(folder, "train", "--data", tiny_dataset, "--with", "parts/own_parts.json", "--out", "run", *options)
    shutil.rmtree(folder / "parts")
    return folder / "run", said


@pytest.fixture
def scan(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 300, (40, 32, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 5.0, 1.0])), tmp_path / "scan.nii")
    return tmp_path / "scan.nii", hu


def test_it_trains_and_keeps_the_code_and_reports(trained):
    folder, _ = trained
    assert (folder / "code" / "own_parts.py").read_bytes() == (EXAMPLE / "own_parts.py").read_bytes()
    assert (folder / "report.html").is_file()
    state = torch.load(folder / "best.pt", weights_only=True)["network_def"]
    assert tuple(state["layers.0.weight"].shape) == (16, 1, 3, 3)


def test_it_is_resumed_and_evaluated(trained):
    folder, _ = trained
    run(folder.parent, "train", "--resume", "--out", "run", "max_epochs=2")
    assert "PSNR" in run(folder.parent, "evaluate", "run").upper()


def test_it_denoises_when_it_is_trusted_and_says_what_is_imported(trained, scan):
    folder, _ = trained
    path, hu = scan
    said = run(path.parent, "denoise", path, path.parent / "a.nii", "--weights", folder / "best.pt", code=1)
    assert "names 'own_parts.EdgeNet', which was not run" in said
    assert "--trust (trust=True) imports and runs own_parts.EdgeNet" in said
    said = run(path.parent, "denoise", path, path.parent / "a.nii", "--weights", folder / "best.pt", "--trust")
    assert f"trusted, and now imported and run: own_parts.EdgeNet ({folder / 'code'})" in said
    state = torch.load(folder / "best.pt", weights_only=True)["network_def"]
    with torch.no_grad():
        x = (torch.from_numpy(hu.astype(np.float32)).permute(2, 0, 1)[:, None] + 1024) / 4096
        y = x
        for layer in (0, 2, 4):
            y = torch.nn.functional.conv2d(y, state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"], padding=1)
            y = y.relu() if layer < 4 else y
        expected = ((x - y) * 4096 - 1024)[:, 0].permute(1, 2, 0).numpy()
    assert np.abs(np.asanyarray(nib.load(path.parent / "a.nii").dataobj) - expected).max() <= 0.51
    with pytest.raises(ConfigError, match="own_parts.EdgeNet"):
        denoise(hu, weights=folder / "best.pt")
    assert "own_parts" not in sys.modules
    assert np.abs(denoise(hu, weights=folder / "best.pt", trust=True) - expected).max() <= 0.51


def test_another_module_of_that_name_is_not_taken_for_it(trained, scan, tmp_path):
    """Python keeps the first one: its network would give other images."""
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "other")
    with (tmp_path / "other" / "code" / "own_parts.py").open("a") as stream:
        stream.write("\nOTHER = 1\n")
    denoise(scan[1], weights=folder / "best.pt", trust=True)
    with pytest.raises(ConfigError, match="another own_parts is imported"):
        denoise(scan[1], weights=tmp_path / "other" / "best.pt", trust=True)


def test_qa_takes_it(trained, tmp_path):
    folder, _ = trained
    options = ["--doses", "1,0.25", "--slices", 4, "--size", 160, "--pixel-mm", 1.5, "--device", "cpu"]
    said = run(tmp_path, "qa", "--weights", folder / "best.pt", "--trust", "--out", "qa", *options)
    assert "own_parts.EdgeNet" in said
    assert (tmp_path / "qa" / "report.html").is_file()


def test_it_is_packed_with_its_code(trained, scan, tmp_path):
    folder, _ = trained
    path, hu = scan
    run(tmp_path, "pack", "--weights", folder / "best.pt", "--out", "dist", code=1)
    run(tmp_path, "pack", "--weights", folder / "best.pt", "--out", "dist", "--trust")
    (bundle,) = (tmp_path / "dist").glob("*.zip")
    with zipfile.ZipFile(bundle) as archive:
        assert archive.read("ct_cncl/own_parts.py") == (EXAMPLE / "own_parts.py").read_bytes()
        archive.extractall(tmp_path / "unpacked")
    doubts = review_source(bundle).review.doubts
    assert any("own_parts.py: unknown code" in doubt for doubt in doubts)
    models = tmp_path / "unpacked" / "ct_cncl" / "models"
    exported = denoise(hu, weights=models / "model.ts")  # needs no trust
    assert np.abs(exported - denoise(hu, weights=folder / "best.pt", trust=True)).max() <= 1
    run(tmp_path, "denoise", path, tmp_path / "b.nii", "--weights", models / "model.pt", "--trust")
    assert np.abs(np.asanyarray(nib.load(tmp_path / "b.nii").dataobj) - exported).max() <= 1
