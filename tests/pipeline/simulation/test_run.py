"""What ``simulate`` writes, and what its record says."""

import json

import nibabel as nib
import numpy as np
import pytest
from low_dose import LPS, PHOTONS, PIXEL, RADIUS, cylinder, record, run, save, values

from ct_cncl.transforms import __version__
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.simulation import own_seed


def test_the_result_is_the_scan_plus_the_noise_of_the_physics(tmp_path):
    volume = cylinder()
    source = save(tmp_path / "scan.nii.gz", volume)
    (path,) = run(source, tmp_path / "out")
    assert path == tmp_path / "out" / "scan_dose0.25_r1.nii.gz"
    settings = DoseSettings(dose_fraction=0.25, incident_photons=PHOTONS)
    expected = insert_noise(volume, (PIXEL, PIXEL), settings, own_seed(0, "scan", 1))
    np.testing.assert_array_equal(values(path), np.rint(np.maximum(expected, -1024)))
    assert nib.load(path).get_data_dtype() == np.int16
    np.testing.assert_array_equal(nib.load(path).affine, LPS)


@pytest.mark.parametrize("value", [-2000, -1024])
def test_padding_stays_and_air_is_cut_off_at_the_floor(tmp_path, value):
    (path,) = run(save(tmp_path / "a.nii", cylinder(padding=value)), tmp_path / "out", dose_fraction=0.02)
    assert path.suffix == ".nii"
    assert (values(path)[RADIUS > 40.5] == value).all()
    assert values(path)[RADIUS < 39].min() == -1024


@pytest.mark.parametrize(
    "affine",
    [np.diag([PIXEL, PIXEL, 3.0, 1.0]), np.array([[0, 0, 3.0, 7], [PIXEL, 0, 0, 5], [0, PIXEL, 0, 1], [0, 0, 0, 1]])],
    ids=["RAS", "sagittal"],
)
def test_any_orientation_keeps_its_axes(tmp_path, affine):
    volume = cylinder()
    (path,) = run(save(tmp_path / "a.nii.gz", volume, affine), tmp_path / "out")
    np.testing.assert_array_equal(nib.load(path).affine, affine)
    difference = values(path).astype(float) - volume
    assert abs(difference[RADIUS < 20].mean()) < 2
    assert difference[RADIUS < 20].std() == pytest.approx(7.3, rel=0.05)  # as stored the way slices are shown


def test_full_dose_gives_the_scan(tmp_path):
    volume = cylinder(padding=-2000)
    (path,) = run(save(tmp_path / "a.nii.gz", volume), tmp_path / "out", dose_fraction=1.0)
    assert path.name == "a_dose1_r1.nii.gz"
    np.testing.assert_array_equal(values(path), volume)


def test_realizations_are_independent_and_calibrated_once(tmp_path, count):
    volume = cylinder(slices=4)
    source = save(tmp_path / "a.nii.gz", volume)
    paths = run(source, tmp_path / "out", realizations=3, incident_photons=None)
    assert [path.name for path in paths] == [f"a_dose0.25_r{k}.nii.gz" for k in (1, 2, 3)]
    assert count == {"low_dose": 3, "calibrate": 1}
    added = [(values(path).astype(float) - volume)[RADIUS < 20].ravel() for path in paths]
    assert np.abs(np.corrcoef(added) - np.eye(3)).max() < 0.2
    assert len({record(path)["noise_seed"] for path in paths}) == 3
    assert len({record(path)["settings"]["incident_photons"] for path in paths}) == 1


def test_a_folder_keeps_its_sub_folders_and_every_scan_its_own_noise(tmp_path):
    for name in ("P1/scan.nii.gz", "P2/scan.nii.gz"):
        save(tmp_path / "in" / name, cylinder())
    one, two = run(tmp_path / "in", tmp_path / "out")
    assert one == tmp_path / "out" / "P1" / "scan_dose0.25_r1.nii.gz"
    added = [(values(path).astype(float) - cylinder())[RADIUS < 20].ravel() for path in (one, two)]
    assert abs(np.corrcoef(added)[0, 1]) < 0.2


def test_non_square_pixels(tmp_path):
    volume = cylinder()[:, ::2]
    affine = np.diag([-PIXEL, -2 * PIXEL, 3.0, 1.0])
    (path,) = run(save(tmp_path / "a.nii.gz", volume, affine), tmp_path / "out")
    assert record(path)["pixel_mm"] == [PIXEL, 2 * PIXEL]
    settings = DoseSettings(dose_fraction=0.25, incident_photons=PHOTONS)
    expected = insert_noise(volume, (PIXEL, 2 * PIXEL), settings, own_seed(0, "a", 1))
    np.testing.assert_array_equal(values(path), np.rint(np.maximum(expected, -1024)))


def test_provenance_says_how_it_was_made(tmp_path):
    source = save(tmp_path / "a.nii.gz", cylinder())
    options = {"electronic_variance": 100.0, "geometry": "mayo", "seed": 7, "realizations": 2}
    path = run(source, tmp_path / "out", **options)[1]
    found = record(path)
    assert found["settings"]["dose_fraction"] == 0.25
    assert found["settings"]["incident_photons"] == PHOTONS
    assert found["settings"]["electronic_variance"] == 100.0
    assert found["settings"]["geometry"] == "mayo"
    assert found["settings"]["views"] == 1152
    assert found["settings"]["apodisation"] == "hann"
    assert found["version"] == __version__
    assert found["requested"]["seed"] == 7
    assert found["requested"]["realization"] == 2
    assert found["source"] == "a dose 0.25, r2"
    assert found["result"] == {"lowdose": "a_dose0.25_r2.nii.gz"}
    assert found["noise_seed"] == own_seed(7, "a", 2)
    assert found["calibration"]["method"] == "user"
    assert found["warnings"] == []
    assert found["digests"]["results"]["lowdose"]["files"] == 1
    assert found["calibration"]["slices"] == []
    assert str(tmp_path) not in json.dumps(found)


def test_what_could_not_be_measured_and_a_cut_body_are_in_the_provenance(tmp_path, capsys):
    hu = np.random.default_rng(0).normal(-700, 60, (40, 40, 1)).astype(np.int16)
    found = record(run(save(tmp_path / "lung.nii", hu), tmp_path / "out", incident_photons=None)[0])
    assert found["calibration"]["method"] == "default"
    assert "no uniform soft tissue" in found["calibration"]["reason"]
    assert "no DICOM" in found["calibration"]["reason"]
    cut = np.where(RADIUS < 30, -1000, 40)[..., None].astype(np.int16)
    found = record(run(save(tmp_path / "cut.nii", cut), tmp_path / "out")[0])
    assert "field of view smaller than the body" in found["warnings"][0]
    assert "cut dose 0.25, r1: warning: field of view" in capsys.readouterr().err


def test_values_that_do_not_fit_the_sources_type_are_counted(tmp_path):
    image = nib.Nifti1Image(((cylinder() + 1024) // 8).clip(0, 166).astype(np.uint8), LPS)
    image.header.set_slope_inter(6.0, -1000.0)  # up to 530 HU
    nib.save(image, tmp_path / "a.nii")
    (path,) = run(tmp_path / "a.nii", tmp_path / "out", dose_fraction=0.001)
    assert nib.load(path).get_data_dtype() == np.uint8
    assert record(path)["clipped_voxels"]["lowdose"] > 0


def test_a_measured_scan_has_both_spectra_and_their_picture(tmp_path):
    hu = np.where(np.hypot(*np.mgrid[-48:48, -48:48]) < 40, 0.0, -1000.0)[..., None]
    noisy = insert_noise(hu, (PIXEL, PIXEL), DoseSettings(dose_fraction=1.0, incident_photons=2e5), 0, noise_free=True)
    source = save(tmp_path / "a.nii.gz", np.rint(noisy).astype(np.int16))
    (path,) = run(source, tmp_path / "out", incident_photons=None)
    found = record(path)
    assert found["calibration"]["method"] == "image"
    assert found["spectra"]["inserted_over_own_level"] == pytest.approx(1, abs=0.15)
    assert len(found["spectra"]["frequency_per_mm"]) == len(found["spectra"]["scan_hu2_mm2"])
    assert found["settings"]["electronic_variance"] > 0
    assert (tmp_path / "out" / "a_dose0.25_r1.nii.gz.svg").read_text().startswith("<svg")


def test_a_spectrum_of_the_users_is_refused_before_the_work_or_taken(tmp_path, count):
    source = save(tmp_path / "a.nii.gz", cylinder())
    nps = tmp_path / "nps.csv"
    nps.write_text("f,power\n0,1\n")
    with pytest.raises(ValueError, match="Expected the columns"):
        run(source, tmp_path / "out", incident_photons=None, nps=nps)
    assert count["low_dose"] == 0
    nps.write_text("frequency_per_mm,power_hu2_mm2\n" + "".join(f"{k / 20},{1000 * k}\n" for k in range(1, 9)))
    (path,) = run(source, tmp_path / "out", incident_photons=None, nps=nps)
    assert record(path)["calibration"]["spectrum_source"] == "nps.csv"
    with pytest.raises(ValueError, match="--nps"):
        run(source, tmp_path / "out2", nps=nps)
