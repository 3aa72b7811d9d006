"""Scans that the dose law is not made for: a stated default, a warning, or one line."""

import numpy as np
import pytest
from low_dose import dicom, record, run, save, values
from scipy.ndimage import gaussian_filter

from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.series import ScanError

PIXEL, SIDE = 1.5, 160
AFFINE = np.diag([-PIXEL, -PIXEL, 3.0, 1.0])
RADIUS = np.hypot(*np.mgrid[-79.5:80, -79.5:80])


def noisy(clean, photons=3e5):
    """A full-dose scan, whole HU, (x, y, z)."""
    settings = DoseSettings(dose_fraction=1.0, incident_photons=photons)
    return np.rint(insert_noise(clean, (PIXEL, PIXEL), settings, 0, noise_free=True)).astype(np.int16)


def water(slices=1):
    return np.where(RADIUS < 70, 20.0, -1000.0)[..., None].repeat(slices, axis=2)


def simulated(tmp_path, volume, **options):
    (path,) = run(save(tmp_path / "a.nii.gz", volume, AFFINE), tmp_path / "out", incident_photons=None, **options)
    return values(path).astype(float), record(path)


@pytest.mark.parametrize("crop", ["lung", "head"])
def test_without_soft_tissue_the_default_is_taken_and_said(tmp_path, capsys, crop):
    clean = np.full((SIDE, SIDE, 1), -850.0)
    if crop == "head":  # skull and air, the brain cropped away
        clean = np.where(RADIUS < 70, 900.0, -1000.0)[..., None]
    low, found = simulated(tmp_path, noisy(clean))
    assert found["calibration"]["method"] == "default"
    assert "no uniform soft tissue" in found["calibration"]["reason"]
    assert "2e+05 photons, calibration: default (no uniform soft tissue" in capsys.readouterr().out
    assert np.isfinite(low).all()


def test_metal_is_simulated_and_does_not_decide_the_level(tmp_path):
    clean = water()
    clean[60:66, 60:66] = 8000.0
    plain, metal = noisy(water()), noisy(clean)
    _, found = simulated(tmp_path, metal)
    low, _ = simulated(tmp_path / "other", plain)
    level = found["calibration"]["noise_hu"]
    inside = (RADIUS < 60) & (np.hypot(*(np.indices(RADIUS.shape) - 62.5)) > 30)
    assert level == pytest.approx((metal - clean)[inside].std(), rel=0.1)
    assert low.min() >= -1024


@pytest.mark.parametrize("how", ["denoised", "kernel"])
def test_a_scan_whose_noise_is_not_of_the_model_is_warned_about(tmp_path, capsys, how):
    if how == "denoised":  # smoothed but for the edges, as a strong denoiser does
        clean, fine = water(), np.diag([-0.8, -0.8, 3.0, 1.0])
        noise = gaussian_filter(noisy(clean, photons=3e3) - clean, (3, 3, 0))
        source = save(tmp_path / "a.nii.gz", np.rint(clean + noise).astype(np.int16), fine)
        (path,) = run(source, tmp_path / "out", incident_photons=None)
        found = record(path)
        words = "denoised or reconstructed iteratively"
    else:
        small = noisy(np.where(RADIUS < 35, 20.0, -1000.0)[..., None])[40:120, 40:120]
        dicom(tmp_path / "in", small, ConvolutionKernel="I30f")
        (path,) = run(tmp_path / "in", tmp_path / "out")
        found, words = record(path), "kernel I30f: an iterative or learned reconstruction"
    assert any(words in warning for warning in found["warnings"]), found["warnings"]
    assert words in capsys.readouterr().err


def test_one_small_slice_is_enough_or_says_that_it_is_not(tmp_path):
    volume = noisy(water())[64:128, 64:128]
    volume[:2] = -1000  # air, so that these are HU
    low, found = simulated(tmp_path, volume)
    assert low.shape == (64, 64, 1)
    assert found["calibration"]["method"] in ("image", "default")
    assert found["calibration"]["method"] == "image" or found["calibration"]["reason"]


def test_values_that_are_no_hu_are_one_line(tmp_path):
    volume = (noisy(water()) + 1024).clip(0).astype(np.int16)
    with pytest.raises(
        ScanError, match=r"a.nii.gz: Expected HU, where air is about -1000, but got values from \d+ to"
    ) as caught:
        simulated(tmp_path, volume)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frequency_per_pixel,power_hu2_mm2\n", "State the units in the first line"),
        ("frequency_per_mm,power_hu2_mm2\n" + "".join(f"{k},{10 * k}\n" for k in range(9)), "Are they in 1/cm"),
        ("frequency_per_mm,power_hu2_mm2\n" + "".join(f"{k / 10},{k / 1e9}\n" for k in range(9)), "HU\\^2 mm\\^2"),
    ],
    ids=["headings", "frequencies", "powers"],
)
def test_a_spectrum_in_other_units_is_one_line_before_any_work(tmp_path, text, words):
    (tmp_path / "nps.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        simulated(tmp_path, noisy(water()), nps=tmp_path / "nps.csv")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
