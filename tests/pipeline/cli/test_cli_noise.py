import json

import nibabel as nib
import numpy as np
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted


def water(path, seed, sd=20.0):
    """(96, 96, 4) of water with white noise, in air."""
    disc = np.hypot(*np.mgrid[-48:48, -48:48]) < 42
    hu = np.where(disc, 0.0, -1000.0)[..., None] + np.random.default_rng(seed).normal(0, sd, (96, 96, 4))
    nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), np.diag([-1.0, -1.0, 5.0, 1.0])), path)
    return path


def test_a_repeated_scan_gives_the_noise_by_subtraction(tmp_path, command):
    first, second = water(tmp_path / "a.nii.gz", 1), water(tmp_path / "b.nii.gz", 2)
    run = ("noise", first, "--repeat", second, "--map", "--out", tmp_path / "out")
    code, _, errors = command(*run)
    assert code == 0, errors
    assert (tmp_path / "out" / "noise.csv").is_file()
    assert list((tmp_path / "out").rglob("*.nii*"))
    json.loads((tmp_path / "out" / "noise.json").read_text())


def test_train_lists_its_overlays(command):
    code, text, _ = command("train", "--list")
    assert code == 0
    for name in ("paper", "fast", "quarter_dose", "fine_tune", "demo"):
        assert name in text


@pytest.mark.parametrize("apart", [True, False])
def test_records_and_manifest_lie_where_they_are_told(tmp_path, command, apart):
    write_series(tmp_path / "in", 0)
    write_series(tmp_path / "in", 1)
    weights = scripted(Add(5.0), tmp_path / "w" / "add.ts")
    where = ("--manifest", tmp_path / "records") if apart else ()
    code, _, errors = command("denoise", tmp_path / "in", "--out", tmp_path / "out", "--weights", weights, *where)
    assert code == 0, errors
    assert (tmp_path / ("records" if apart else "out") / "manifest.jsonl").is_file()
    assert bool(list((tmp_path / "out").rglob("*.json*"))) != apart
