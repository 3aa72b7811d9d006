import dataclasses

import numpy as np
import pytest

from ct_cncl.transforms.physics import DoseSettings, calibrate_incident_photons, insert_noise
from ct_cncl.transforms.physics.simulation import calibrate, low_dose, own_seed, scanner_floor
from ct_cncl.transforms.series import Acquisition

SIZE, PIXEL = 96, (3.0, 3.0)
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 47.5, np.arange(SIZE) - 47.5, indexing="ij"))
SETTINGS = DoseSettings(views=90, apodisation="cosine", cutoff=0.8)
WATER = np.where(RADIUS < 36, 0.0, -1000.0)[..., None].repeat(2, axis=2)
LUNG = np.random.default_rng(0).normal(-800, 30, (SIZE, SIZE, 2))
TAGS = Acquisition(kvp=120.0, exposure_mas=100.0, slice_thickness_mm=2.0, kernel="B30f", manufacturer="SIEMENS")


@pytest.fixture(scope="module")
def scan():
    """A water cylinder with the noise of 1e4 photons."""
    full = dataclasses.replace(SETTINGS, dose_fraction=1.0, incident_photons=1e4)
    return insert_noise(WATER, PIXEL, full, 0, noise_free=True)


def method(volume, **options):
    found = calibrate(volume, PIXEL, SETTINGS, 0, **options)
    return found.method, found


# Calibration ---------------------------------------------------------------------------------------------------------


def test_auto_measures_where_it_can_whatever_the_tags_say(scan):
    name, found = method(scan, acquisition=TAGS)
    assert name == "image"
    assert found == calibrate_incident_photons(scan, PIXEL, SETTINGS, 0)


def test_auto_goes_on_to_the_tags_and_says_why():
    name, found = method(LUNG, acquisition=TAGS)
    assert name == "tags"
    assert found.incident_photons == pytest.approx(1.8e6 * 100 * 2 * 3 / 90)
    assert "no uniform soft tissue" in found.reason
    assert "default" not in found.reason


@pytest.mark.parametrize("acquisition", [None, Acquisition(kvp=120.0)])
def test_auto_ends_with_the_default_and_all_reasons(acquisition):
    name, found = method(LUNG, acquisition=acquisition)
    assert (name, found.incident_photons, found.apodisation, found.cutoff) == ("default", 2e5, "cosine", 0.8)
    assert "no uniform soft tissue" in found.reason
    assert ("no DICOM" if acquisition is None else "SliceThickness") in found.reason
    assert found.reason.count("default of 200000 photons") == 1


def test_one_way_only_takes_no_other(scan):
    assert method(scan, how="tags", acquisition=TAGS)[0] == "tags"
    assert method(LUNG, how="image", acquisition=TAGS)[0] == "default"
    name, found = method(scan, how="default", acquisition=TAGS)
    assert (name, found.reason) == ("default", "default of 200000 photons")


def test_the_users_quanta_keep_the_filter_of_the_settings(scan):
    name, found = method(scan, incident_photons=12345.0, acquisition=TAGS)
    assert (name, found.incident_photons, found.apodisation, found.cutoff) == ("user", 12345.0, "cosine", 0.8)


def test_what_cannot_be_is_refused(scan):
    with pytest.raises(ValueError, match="from auto, image, tags, default, but got 'guess'"):
        method(scan, how="guess")
    with pytest.raises(ValueError, match="got both"):
        method(scan, how="image", incident_photons=1e5)
    with pytest.raises(ValueError, match=r"Expected tags.*SliceThickness missing"):
        method(scan, how="tags", acquisition=Acquisition(kvp=120.0, exposure_mas=1.0))


# Low dose ------------------------------------------------------------------------------------------------------------


def test_low_dose_is_inserted_noise_cut_off_at_the_floor():
    hu = WATER.copy()
    hu[RADIUS > 48] = -2000
    settings = dataclasses.replace(SETTINGS, dose_fraction=0.1, incident_photons=3e3)
    low, noisy = low_dose(hu, PIXEL, settings, 3), insert_noise(hu, PIXEL, settings, 3)
    np.testing.assert_array_equal(low[RADIUS > 48], -2000)
    np.testing.assert_array_equal(low[RADIUS <= 48], np.maximum(noisy, -1024)[RADIUS <= 48])
    assert noisy[RADIUS <= 48].min() < -1100


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_full_dose_is_the_volume_bit_by_bit(dtype):
    hu = WATER.astype(dtype)
    low = low_dose(hu, PIXEL, dataclasses.replace(SETTINGS, dose_fraction=1.0), 0)
    assert low.dtype == dtype
    np.testing.assert_array_equal(low, hu)


def test_progress_is_reported():
    calls = []
    low_dose(WATER, PIXEL, SETTINGS, 0, progress=lambda *done: calls.append(done))
    assert calls[-1] == (2, 2)


def test_the_floor_is_the_scans_own_where_it_goes_lower():
    assert scanner_floor(WATER) == -1024.0
    lower = WATER.copy()
    lower[48, 2, 0] = -1080
    lower[RADIUS > 48] = -2000
    assert scanner_floor(lower) == -1080.0


# Seeds ---------------------------------------------------------------------------------------------------------------


def test_scans_and_realizations_have_seeds_of_their_own():
    seeds = [own_seed(seed, name, *k) for seed in (0, 1) for name in ("a", "b") for k in ((), (1,), (2,))]
    assert len(set(seeds)) == 12
    assert seeds == [own_seed(seed, name, *k) for seed in (0, 1) for name in ("a", "b") for k in ((), (1,), (2,))]


def test_realizations_count_from_one():
    """0 would give the seed of the scan itself: trailing zeros of a seed do not count."""
    with pytest.raises(ValueError, match="realization of 1 or above"):
        own_seed(0, "a", 0)
