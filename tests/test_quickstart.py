"""docs/quickstart.ipynb: every cell runs, in order, without a network, and says what its text says."""

import json
import socket

import nibabel as nib
import numpy as np
import pytest
from tiny_runs import ROOT

from ct_cncl.transforms.phantom import anatomical_phantom

NOTEBOOK = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the cells in one namespace, after ``change(cell)``; no socket can be opened."""
    pytest.importorskip("matplotlib", reason="needs ct-cncl[report]").use("Agg")

    def refused(*_arguments, **_options):
        raise OSError("the notebook asked for a network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)

    def cells(change=lambda cell: cell):
        names = {}
        for number, cell in enumerate(CODE):
            exec(compile(change(cell), f"cell {number}", "exec"), names)
        return names

    return cells


def test_phantom(run):
    names = run()
    assert names["scores"]["denoised"][0] > names["scores"]["low dose"][0] + 2
    maps = names["maps"]
    assert np.allclose(maps["denoised"] + maps["removed"], names["low"], atol=0.01)
    assert 5 < names["maps"]["noise"].std() < 25
    assert 0 < maps["disagreement"].mean() < 2


def test_own_scan(run, tmp_path):
    """A scan of the user's: smaller than the phantom, noisy, and calibrated from its own noise or the default."""
    clean = anatomical_phantom(3, slices=3, size=128, region="abdomen").hu
    hu = np.random.default_rng(0).normal(clean, 20).clip(-1024).round().astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([3.0, 3.0, 2.0, 1.0])), tmp_path / "scan.nii.gz")
    names = run(lambda cell: cell.replace("SCAN = None ", 'SCAN = "scan.nii.gz" '))
    assert names["reference"].shape == names["low"].shape == names["denoised"].shape == (128, 128, 1)
    assert (names["low"] - names["reference"]).std() > 5


def test_it_is_committed_without_output():
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])
