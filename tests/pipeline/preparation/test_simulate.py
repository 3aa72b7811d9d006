import json
import re

import nibabel as nib
import numpy as np
import pytest
from tiny_dicom import dicom_slice

from ct_cncl.pipeline.preparation import simulate as module
from ct_cncl.pipeline.preparation.simulate import SimulateOptions, simulate_scans
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.simulation import own_seed
from ct_cncl.transforms.series import ScanError, write_nifti

SIZE, PIXEL = 80, 4.0
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 39.5, np.arange(SIZE) - 39.5, indexing="ij"))
LPS = np.diag([-PIXEL, -PIXEL, 3.0, 1.0])  # stored as slices are shown
QUANTA = 3e4


def cylinder(slices=2, padding=None, seed=0):
    """Water with an insert in air, int16 (x, y, z)."""
    hu = np.where(RADIUS < 26, 0, -990) + np.random.default_rng(seed).normal(0, 5, (slices, SIZE, SIZE))
    hu[:, 30:36, 50:56] = 300
    if padding is not None:
        hu[:, RADIUS > 40] = padding
    return np.moveaxis(hu, 0, 2).round().astype(np.int16)


def save(path, volume, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def run(source, out, **options):
    return simulate_scans(
        SimulateOptions(source, out, **{"dose_fraction": 0.25, "incident_photons": QUANTA, **options})
    )


def values(path):
    return np.asarray(nib.load(path).dataobj)


def record(path):
    return json.loads(path.with_name(re.sub(r"\.nii(\.gz)?$", ".json", path.name)).read_text())


@pytest.fixture
def count(monkeypatch):
    """Counts the volumes that are made and the calibrations."""
    calls = {"low_dose": 0, "calibrate": 0}

    def counted(name, original):
        def call(*args, **options):
            calls[name] += 1
            return original(*args, **options)

        return call

    for name in calls:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return calls


# What is written -----------------------------------------------------------------------------------------------------


def test_the_result_is_the_scan_plus_the_noise_of_the_physics(tmp_path):
    volume = cylinder()
    source = save(tmp_path / "scan.nii.gz", volume)
    (path,) = run(source, tmp_path / "out")
    assert path == tmp_path / "out" / "scan_dose0.25_r1.nii.gz"
    settings = DoseSettings(dose_fraction=0.25, incident_photons=QUANTA)
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


def test_realisations_are_independent_and_calibrated_once(tmp_path, count):
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


def test_dicom_gives_nifti_with_its_geometry_and_is_calibrated_from_its_tags(tmp_path):
    volume = cylinder()
    (tmp_path / "series").mkdir()
    for k in range(2):
        dicom_slice(volume[..., k].T + 1024, 3.0 * k, PIXEL).save_as(
            tmp_path / f"series/{k}.dcm", enforce_file_format=True
        )
    (path,) = run(tmp_path / "series", tmp_path / "out", incident_photons=None, calibration="tags")
    assert path.name == "series_series002_dose0.25_r1.nii.gz"
    np.testing.assert_allclose(nib.load(path).affine, LPS)
    found = record(path)
    assert found["calibration"]["method"] == "tags"
    assert found["calibration"]["incident_photons"] == pytest.approx(1.8e6 * 100 * 5 * PIXEL / 720)
    settings = DoseSettings.from_json(json.dumps(found["settings"]))
    expected = insert_noise(volume, (PIXEL, PIXEL), settings, found["noise_seed"])
    np.testing.assert_array_equal(values(path), np.rint(np.maximum(expected, -1024)))
    assert "NAME" not in json.dumps(found)


def test_slices_of_dicom_are_its_slices_whatever_their_spacing(tmp_path):
    """Pixels of 4 x 3 mm every 4 mm: from the spacing alone, rows would be taken for slices."""
    volume = cylinder(slices=3)
    (tmp_path / "series").mkdir()
    for k in range(3):
        ds = dicom_slice(volume[..., k].T + 1024, 4.0 * k, 4.0)
        ds.PixelSpacing = [3.0, 4.0]
        ds.save_as(tmp_path / f"series/{k}.dcm", enforce_file_format=True)
    (path,) = run(tmp_path / "series", tmp_path / "out")
    assert record(path)["pixel_mm"] == [4.0, 3.0]


def test_non_square_pixels(tmp_path):
    volume = cylinder()[:, ::2]
    affine = np.diag([-PIXEL, -2 * PIXEL, 3.0, 1.0])
    (path,) = run(save(tmp_path / "a.nii.gz", volume, affine), tmp_path / "out")
    assert record(path)["pixel_mm"] == [PIXEL, 2 * PIXEL]
    settings = DoseSettings(dose_fraction=0.25, incident_photons=QUANTA)
    expected = insert_noise(volume, (PIXEL, 2 * PIXEL), settings, own_seed(0, "a", 1))
    np.testing.assert_array_equal(values(path), np.rint(np.maximum(expected, -1024)))


# Provenance ----------------------------------------------------------------------------------------------------------


def test_provenance_says_how_it_was_made(tmp_path):
    source = save(tmp_path / "a.nii.gz", cylinder())
    options = {"electronic_variance": 100.0, "geometry": "mayo", "seed": 7, "realizations": 2}
    path = run(source, tmp_path / "out", **options)[1]
    found = record(path)
    assert found["settings"]["dose_fraction"] == 0.25
    assert found["settings"]["incident_photons"] == QUANTA
    assert found["settings"]["electronic_variance"] == 100.0
    assert found["settings"]["geometry"] == "mayo"
    assert found["settings"]["views"] == 1152
    assert found["settings"]["apodisation"] == "hann"
    assert found["requested"]["version"] == __version__
    assert found["requested"]["seed"] == 7
    assert found["requested"]["realization"] == 2
    assert found["requested"]["source"] == "a"
    assert found["noise_seed"] == own_seed(7, "a", 2)
    assert found["calibration"]["method"] == "user"
    assert found["warnings"] == []
    assert found["result_sha256"] == file_checksum(path)
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
    assert "cut: warning: field of view" in capsys.readouterr().err


def test_values_that_do_not_fit_the_sources_type_are_counted(tmp_path):
    image = nib.Nifti1Image(((cylinder() + 1024) // 8).clip(0, 166).astype(np.uint8), LPS)
    image.header.set_slope_inter(6.0, -1000.0)  # up to 530 HU
    nib.save(image, tmp_path / "a.nii")
    (path,) = run(tmp_path / "a.nii", tmp_path / "out", dose_fraction=0.001)
    assert nib.load(path).get_data_dtype() == np.uint8
    assert re.fullmatch(r"[1-9]\d* voxels did not fit into uint8", record(path)["warnings"][0])


# Going on after an interruption --------------------------------------------------------------------------------------


def test_finished_results_are_kept_and_missing_ones_made(tmp_path, count):
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.nii.gz", cylinder())
    paths = run(tmp_path / "in", tmp_path / "out", realizations=2)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    paths[2].unlink()
    assert run(tmp_path / "in", tmp_path / "out", realizations=2) == paths
    assert count == {"low_dose": 5, "calibrate": 3}
    assert [path.read_bytes() for path in paths] == [content for content, _ in before]
    assert paths[0].stat().st_mtime_ns == before[0][1]
    run(tmp_path / "in", tmp_path / "out", realizations=3)
    assert count["low_dose"] == 7


def test_an_interruption_leaves_what_was_finished_and_nothing_else(tmp_path, monkeypatch, count):
    source = save(tmp_path / "a.nii.gz", cylinder())
    low_dose, calls = module.low_dose, []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return low_dose(*args, **options)

    monkeypatch.setattr(module, "low_dose", stop)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", realizations=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_dose0.25_r1.json", "a_dose0.25_r1.nii.gz"]
    assert len(run(source, tmp_path / "out", realizations=2)) == 2
    assert len(calls) == 3


def test_a_volume_whose_record_is_not_complete_is_made_again(tmp_path, count):
    """Killed between volume and record."""
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    found = record(path)
    (tmp_path / "out" / "a_dose0.25_r1.json").write_text(json.dumps(found | {"result_sha256": None}))
    run(source, tmp_path / "out")
    assert count["low_dose"] == 2
    assert record(path) == found


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"incident_photons": 2e4},
        {"electronic_variance": 5.0},
        {"geometry": "mayo"},
        {"route": "photon_counts"},
        {"bowtie_mm": 200.0},
        {"current_modulation": 0.5},
        {"calibration": "default", "incident_photons": None},
    ],
    ids=str,
)
def test_results_of_other_options_are_replaced_only_on_demand(tmp_path, change):
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    before = path.read_bytes()
    with pytest.raises(ScanError, match="--overwrite"):
        run(source, tmp_path / "out", **change)
    assert path.read_bytes() == before
    run(source, tmp_path / "out", overwrite=True, **change)
    assert path.read_bytes() != before


def test_another_source_or_version_a_changed_result_and_a_strange_file_are_not_taken_for_results(tmp_path, monkeypatch):
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    save(source, cylinder(seed=1))
    with pytest.raises(ScanError, match="other options or changed"):
        run(source, tmp_path / "out")
    save(source, cylinder())
    monkeypatch.setattr(module, "__version__", "9.9")
    with pytest.raises(ScanError, match="other options or changed"):
        run(source, tmp_path / "out")
    monkeypatch.undo()
    save(path, cylinder(seed=2))
    with pytest.raises(ScanError, match="other options or changed"):
        run(source, tmp_path / "out")
    (tmp_path / "new" / "a_dose0.25_r1.nii.gz").parent.mkdir()
    (tmp_path / "new" / "a_dose0.25_r1.nii.gz").write_text("mine")
    with pytest.raises(ScanError, match="other options or changed"):
        run(source, tmp_path / "new")
    assert (tmp_path / "new" / "a_dose0.25_r1.nii.gz").read_text() == "mine"


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dose_fraction": 0.0}, "dose fraction"),
        ({"dose_fraction": 1.5}, "dose fraction"),
        ({"dose_fraction": float("nan")}, "dose fraction"),
        ({"realizations": 0}, "1 or more realisations"),
        ({"seed": -1}, "seed of 0 or above"),
        ({"calibration": "guess", "incident_photons": None}, "calibration out of auto, image, tags, default"),
        ({"calibration": "image"}, "--incident-photons or --calibration"),
        ({"incident_photons": 0.0}, "photons above 0"),
        ({"electronic_variance": -1.0}, "electronic_variance"),
        ({"geometry": "cone"}, "geometry out of parallel, mayo"),
        ({"bowtie_mm": 0.0}, "bowtie_mm above 0"),
        ({"current_modulation": 2.0}, "current_modulation between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "nowhere", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_tags_that_are_not_there_are_refused_by_name(tmp_path):
    source = save(tmp_path / "a.nii.gz", cylinder())
    with pytest.raises(ScanError, match=r"a.nii.gz: .*no DICOM"):
        run(source, tmp_path / "out", incident_photons=None, calibration="tags")


def test_a_volume_that_is_no_hu_is_refused_by_name(tmp_path):
    source = save(tmp_path / "a.nii.gz", np.full((20, 20, 2), 7, np.int16))
    with pytest.raises(ScanError, match=r"a.nii.gz: .*never below 0"):
        run(source, tmp_path / "out")


@pytest.mark.parametrize("inside", ["", "low"])
def test_results_among_the_scans_are_refused(tmp_path, inside):
    save(tmp_path / "in" / "a.nii.gz", cylinder())
    with pytest.raises(OutputError, match="outside of"):
        run(tmp_path / "in", tmp_path / "in" / inside)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.nii.gz"]


def test_beside_a_single_file_is_fine(tmp_path):
    (path,) = run(save(tmp_path / "a.nii.gz", cylinder()), tmp_path)
    assert path == tmp_path / "a_dose0.25_r1.nii.gz"


def test_two_scans_of_one_name_are_refused_before_the_work(tmp_path, count):
    save(tmp_path / "in" / "a.nii.gz", cylinder())
    save(tmp_path / "in" / "a.nii", cylinder())
    with pytest.raises(ScanError, match="got 2 scans that lead to a_dose0.25_r1.json"):
        run(tmp_path / "in", tmp_path / "out")
    assert count["low_dose"] == 0


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(hu, path, *rest, **options):
        raise ScanError(f"{path}: expected to write the output but got No space left on device")

    source = save(tmp_path / "a.nii.gz", cylinder())
    monkeypatch.setattr(module, "write_nifti", full)
    with pytest.raises(ScanError, match="No space left"):
        run(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(module, "write_nifti", write_nifti)
    run(source, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, count):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        run(save(tmp_path / "a.nii.gz", cylinder()), tmp_path / "file" / "out")
    assert count["low_dose"] == 0


# Spectra -------------------------------------------------------------------------------------------------------------


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
    assert (tmp_path / "out" / "a_dose0.25_r1.svg").read_text().startswith("<svg")


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
