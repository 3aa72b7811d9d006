"""A noise map of a DICOM series is a derived series: valid, in HU, and no scan to be denoised. Its page shows a band."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from low_dose import PIXEL, RADIUS, dicom

from ct_cncl.pipeline.noise_measurement.run import measure_scans
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.series import read_scan
from ct_cncl.transforms.series.origin import origin_of


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    clean = np.where(RADIUS < 30, 0.0, -1000.0)[..., None].repeat(2, axis=2)
    settings = DoseSettings(dose_fraction=1.0, incident_photons=3e4)
    noisy = np.rint(insert_noise(clean, (PIXEL, PIXEL), settings, 0, noise_free=True)).astype(np.int16)
    dicom(folder / "in", noisy)
    (row,) = measure_scans(folder / "in", out=folder / "out", maps=True)
    return folder, row, noisy - clean


def test_the_map_is_a_derived_series_of_the_level_that_was_measured(measured):
    folder, _, noise = measured
    path = folder / "out" / "in_series003_noise_map"
    made = read_scan(path, check_hu=False)
    inside = RADIUS < 25
    assert made.hu[inside].mean() == pytest.approx(noise[inside].std(), rel=0.1)
    np.testing.assert_array_equal(made.affine, read_scan(folder / "in").affine)
    for file in path.iterdir():
        ds = pydicom.dcmread(file)
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "NOISE_MAP"]
        assert ds.DerivationCodeSequence[0].CodeValue == "NOISEMAP"
        assert origin_of(ds).refused
        assert origin_of(ds).what == "result of ct-cncl (noise_map)"


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
def test_the_validator_finds_no_new_error(measured):
    folder = measured[0]

    def errors(path):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}

    before = set.union(*map(errors, (folder / "in").iterdir()))
    assert set.union(*map(errors, (folder / "out" / "in_series003_noise_map").iterdir())) <= before


def test_the_page_shows_an_interval_and_over_how_many_patches(measured):
    folder, row, _ = measured
    text = (folder / "out" / "noise.html").read_text()
    assert ("<polygon" in text) == (row["patches"] >= 6)
    assert f"{row['patches']} patches" in text


def test_the_2d_spectrum_holds_the_variance_of_the_noise(measured):
    folder, row, noise = measured
    power = np.array(row["spectrum_2d_hu2_mm2"])
    level = np.sqrt(power.sum()) / (len(power) * PIXEL)
    assert level == pytest.approx(noise[RADIUS < 25].std(), rel=0.1)
    assert power[len(power) // 2, len(power) // 2] < 0.2 * power.max()  # a ramp has nothing at 0
    assert "2-D spectrum" in (folder / "out" / "noise.html").read_text()
