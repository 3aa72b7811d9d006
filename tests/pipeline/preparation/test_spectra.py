"""The spectra that a prepared data set keeps, and their picture."""

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.pipeline.preparation.prepare import SPECTRA_FILE, PrepareOptions, prepare_data
from ct_cncl.transforms.physics import DoseSettings, insert_noise

PIXEL = 2.0


def test_a_data_set_holds_both_spectra_and_draws_their_mean(tmp_path):
    clean = np.where(np.hypot(*np.mgrid[-64:64, -64:64]) < 55, 0.0, -1000.0)[..., None]
    settings = DoseSettings(dose_fraction=1.0, incident_photons=2e5)
    (tmp_path / "in").mkdir()
    for name in ("p1_a", "p2_a"):
        noisy = np.rint(insert_noise(clean, (PIXEL, PIXEL), settings, len(name), noise_free=True)).astype(np.int16)
        nib.save(nib.Nifti1Image(noisy, np.diag([-PIXEL, -PIXEL, 3, 1])), tmp_path / "in" / f"{name}.nii.gz")
    datalist = prepare_data(PrepareOptions(tmp_path / "out", (tmp_path / "in",), validation_fraction=0.5))
    entries = [entry for split in ("training", "validation") for entry in datalist[split]]
    assert len(entries) == 2
    for entry in entries:
        spectra = entry["provenance"]["spectra"]
        assert spectra["inserted_over_own_level"] == pytest.approx(1, abs=0.1)
        assert len(spectra["frequency_per_mm"]) == len(spectra["scan_hu2_mm2"])
    picture = (tmp_path / "out" / SPECTRA_FILE).read_text()
    assert picture.count("<polyline") == 2
    assert "mean of 2" in picture
    prepare_data(PrepareOptions(tmp_path / "out", (tmp_path / "in",), validation_fraction=0.5, overwrite=True))
    assert (tmp_path / "out" / SPECTRA_FILE).read_text() == picture
