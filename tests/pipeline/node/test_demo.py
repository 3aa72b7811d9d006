"""``ct-cncl node demo``: its phantom as DICOM, and the whole of it in small."""

import json

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node.demo_series import write_phantom_series
from ct_cncl.transforms.series import read_scan


def test_the_phantom_as_dicom_is_the_phantom(tmp_path):
    from ct_cncl.transforms.dataset.simulated_cases import phantom_cases

    files = write_phantom_series(tmp_path, 2, size=64)
    pair = phantom_cases(1, first_seed=1, slices=2, dose_fraction=0.25, size=64)[0].make()
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, np.rint(pair.image).clip(-1024))
    assert len({str(pydicom.dcmread(file).SOPInstanceUID) for file in files}) == 2
    np.testing.assert_allclose(np.abs(np.diag(scan.affine))[:3], np.abs(np.diag(pair.affine))[:3], rtol=1e-5)


def test_the_demo_in_small(tmp_path, command, monkeypatch):
    """Through Orthanc where it is installed, else into a folder; named as in the documentation, by a relative path."""
    # Another test's captured stream may be closed behind a logger of pynetdicom: nothing of the demo.
    monkeypatch.setattr("logging.raiseExceptions", False)
    monkeypatch.chdir(tmp_path)
    options = ("--slices", 2, "--size", 64, "--no-browser", "--no-stay")
    code, out, err = command("node", "demo", "--out", "demo", *options)
    assert (code, err) == (0, "")
    assert "4/4  Done: http://127.0.0.1:" in out
    lines = [json.loads(line) for line in (tmp_path / "demo/spool/audit.jsonl").read_text().splitlines()]
    assert {"received", "denoised", "delivered", "stopped"} <= {line["event"] for line in lines}
    assert "Traceback" not in (tmp_path / "demo/node.log").read_text()
    code, _, err = command("node", "demo", "--out", tmp_path / "demo", *options)
    assert code == 1
    assert "Use --overwrite or another --out" in err
    code, _, err = command("node", "demo", "--out", tmp_path, *options, "--overwrite")
    assert code == 1
    assert "holds something else" in err
