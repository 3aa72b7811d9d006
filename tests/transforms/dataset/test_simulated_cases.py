import nibabel as nib
import numpy as np
import pytest
from tiny_dicom import dicom_slice

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.dataset.simulated_cases import PHANTOM_INCIDENT_PHOTONS, phantom_cases, simulated_cases
from ct_cncl.transforms.series import ScanError

SIZE, PIXEL = 96, 4.0
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 47.5, np.arange(SIZE) - 47.5, indexing="ij"))
AFFINE = np.diag([PIXEL, PIXEL, 3.0, 1.0])  # stored the other way round than slices are shown
PHOTONS = 3e4


def cylinder(seed=0, *, slices=2, padding=None):
    """A water cylinder in air with some noise, int16 HU; whole numbers in the direction that is stored."""
    hu = np.where(RADIUS < 28, 0, -990) + np.random.default_rng(seed).normal(0, 5, (slices, SIZE, SIZE))
    hu[:, 40:44, 60:70] = 300  # so that turning shows
    if padding is not None:
        hu[:, RADIUS > 48] = padding
    return np.moveaxis(hu, 0, 2).round().astype(np.int16)


def save(folder, name, volume, affine=AFFINE):
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / name)
    return folder / name


def simulated(path, **options):
    options = {"dose_fraction": 0.25, "seed": 1, "incident_photons": PHOTONS, **options}
    return simulated_cases(path, patients=PatientFinder(), **options)


def canonical(volume, affine):
    """Voxels and affine in RAS order, whatever the order of the array."""
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume, np.float32), affine))
    return np.asarray(image.dataobj), image.affine


def added(pair):
    """The noise inside the cylinder, away from its edge."""
    return (pair.image - pair.label)[RADIUS < 20]


# Phantoms ------------------------------------------------------------------------------------------------------------


def phantoms(count=2, first_seed=3, **options):
    return phantom_cases(count, first_seed=first_seed, **{"slices": 1, "dose_fraction": 0.25, "size": 64, **options})


def test_phantoms_are_reproducible_and_differ():
    one, two = (phantoms() for _ in range(2))
    pairs = [case.make() for case in one]
    again = [case.make() for case in reversed(two)][::-1]
    for first, second in zip(pairs, again, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.label, second.label)
        np.testing.assert_array_equal(first.affine, second.affine)
    assert not np.array_equal(pairs[0].label, pairs[1].label)
    assert [case.patient for case in one] == ["phantom-3", "phantom-4"]
    np.testing.assert_array_equal(phantoms(1, 4)[0].make().image, pairs[1].image)


def test_a_phantoms_truth_is_noise_free_and_its_dose_is_in_the_noise():
    quarter, full = (phantoms(1, dose_fraction=dose)[0].make() for dose in (0.25, 1.0))
    np.testing.assert_array_equal(quarter.label, full.label)
    air = quarter.label > -900  # the scanner's floor cuts the noise of air
    ratio = (quarter.image - quarter.label)[air].std() / (full.image - full.label)[air].std()
    assert ratio == pytest.approx(2.0, rel=0.02)
    assert full.provenance["truth"] == "noise-free"
    assert quarter.provenance["settings"]["dose_fraction"] == 0.25
    assert quarter.provenance["settings"]["incident_photons"] == pytest.approx(PHANTOM_INCIDENT_PHOTONS / 64)


def test_phantoms_have_the_same_noise_at_every_size():
    """Regression: photons were scaled the wrong way round, so that 64 x 64 phantoms had 0.7 HU where 512 x 512 had 42."""

    def noise(size):
        pair = phantoms(1, size=size)[0].make()
        return (pair.image - pair.label)[pair.label > -900].std()

    assert noise(64) == pytest.approx(noise(256), rel=0.1)


def test_phantoms_are_cut_off_where_scanners_cut():
    assert phantoms(1, dose_fraction=0.01)[0].make().image.min() == -1024


@pytest.mark.parametrize("options", [{"count": 0}, {"slices": 0}, {"count": -2}])
def test_no_phantoms_are_refused(options):
    with pytest.raises(DataError, match="at least one phantom"):
        phantoms(**options)


# Simulated low dose --------------------------------------------------------------------------------------------------


def test_the_label_is_the_scan_in_place(tmp_path):
    volume = cylinder()
    path = save(tmp_path, "L1_a.nii.gz", volume)
    (case,) = simulated(path)
    assert (case.patient, case.source, case.dose_fraction) == ("L1", "L1_a", 0.25)
    pair = case.make()
    for mine, stored in zip(canonical(pair.label, pair.affine), canonical(volume, AFFINE), strict=True):
        np.testing.assert_array_equal(mine, stored)
    assert pair.image.shape == pair.label.shape
    assert pair.provenance["calibration"]["method"] == "user"
    assert (
        pair.provenance["calibration"]["incident_photons"] == pair.provenance["settings"]["incident_photons"] == PHOTONS
    )
    assert pair.provenance["warning"] == ""


def test_at_full_dose_the_image_is_the_label(tmp_path):
    save(tmp_path, "a.nii", cylinder())
    save(tmp_path, "b.nii", cylinder(padding=-2000))
    for case in simulated(tmp_path, dose_fraction=1.0):
        pair = case.make()
        np.testing.assert_array_equal(pair.image, pair.label)


def test_noise_is_added_without_bias_and_grows_as_the_dose_falls(tmp_path):
    path = save(tmp_path, "a.nii", cylinder())
    quarter, tenth = (added(simulated(path, dose_fraction=dose)[0].make()) for dose in (0.25, 0.1))
    assert abs(quarter.mean()) < 0.2 * quarter.std()
    # The variance that is added goes as 1/a - 1.
    assert tenth.std() / quarter.std() == pytest.approx(np.sqrt(9 / 3), rel=0.02)


def test_the_same_seed_gives_the_same_noise_and_another_seed_another(tmp_path):
    path = save(tmp_path, "a.nii", cylinder())
    one, again, other = (simulated(path, seed=seed)[0].make() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, again.image)
    assert abs(np.corrcoef(added(one).ravel(), added(other).ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("names", [("a.nii", "b.nii"), ("P1/scan.nii", "P2/scan.nii")])
def test_every_file_has_its_own_noise(tmp_path, names):
    """Regression: files of one name in several sub-folders had the same noise."""
    for name in names:
        save((tmp_path / name).parent, name.rpartition("/")[2], cylinder())
    one, two = (case.make() for case in simulated(tmp_path))
    np.testing.assert_array_equal(one.label, two.label)
    assert abs(np.corrcoef(added(one).ravel(), added(two).ravel())[0, 1]) < 0.2


def test_noise_does_not_depend_on_the_other_files(tmp_path):
    path = save(tmp_path, "b.nii", cylinder())
    alone = simulated(path)[0].make().image
    save(tmp_path, "a.nii", cylinder(1))
    np.testing.assert_array_equal(simulated(tmp_path)[1].make().image, alone)


def test_low_dose_is_cut_off_where_scanners_cut(tmp_path):
    path = save(tmp_path, "a.nii", cylinder())
    pair = simulated(path, dose_fraction=0.01)[0].make()
    assert pair.label.min() > -1024
    assert pair.image.min() == -1024


def test_a_scan_that_goes_lower_sets_the_floor_itself(tmp_path):
    volume = cylinder()
    volume[50, 90, 0] = -1100
    pair = simulated(save(tmp_path, "a.nii", volume), dose_fraction=0.01)[0].make()
    assert pair.image.min() == -1100


@pytest.mark.parametrize("value", [-2000, -3024])
def test_padding_stays_and_does_not_lower_the_floor_of_the_rest(tmp_path, value):
    """Regression: with padding at -2000 nothing was cut off at -1024."""
    path = save(tmp_path, "a.nii", cylinder(padding=value))
    pair = simulated(path, dose_fraction=0.01)[0].make()
    outside = RADIUS > 48
    assert (pair.image[outside] == value).all()
    assert pair.image[~outside].min() == -1024


def test_a_folder_without_scans_and_a_scan_without_a_patient_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="empty folder"):
        simulated(tmp_path / "empty")
    save(tmp_path / "scans", "x.nii", cylinder())
    with pytest.raises(DataError, match="x.nii"):
        simulated_cases(
            tmp_path / "scans",
            patients=PatientFinder(name_rule=r"L\d+"),
            dose_fraction=0.25,
            seed=0,
            incident_photons=PHOTONS,
        )


def test_a_scan_without_uniform_tissue_says_so_and_takes_the_default(tmp_path):
    path = save(tmp_path, "a.nii", np.random.default_rng(0).normal(-800, 40, (40, 40, 2)).astype(np.int16))
    calibration = simulated(path, incident_photons=None)[0].make().provenance["calibration"]
    assert (calibration["method"], calibration["incident_photons"]) == ("default", 2e5)
    for part in ("no uniform soft tissue", "the file is no DICOM", "default of 200000 photons"):
        assert part in calibration["reason"]


def test_a_dicom_scan_without_uniform_tissue_takes_its_tags(tmp_path):
    lung = np.random.default_rng(0).normal(-800, 40, (2, 40, 40)).astype(np.int16)
    for k in range(2):
        dicom_slice(lung[k] + 1024, 3.0 * k, PIXEL).save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    (case,) = simulated(tmp_path, incident_photons=None)
    calibration = case.make().provenance["calibration"]
    assert (case.patient, calibration["method"]) == ("NAME", "tags")
    assert calibration["incident_photons"] == pytest.approx(1.8e6 * 100 * 5 * PIXEL / 720)


def test_a_body_beyond_the_field_of_view_is_warned_of(tmp_path):
    hu = np.random.default_rng(0).normal(40, 5, (SIZE, SIZE, 2)).astype(np.int16)
    hu[0, 0] = -1000
    pair = simulated(save(tmp_path, "a.nii", hu))[0].make()
    assert "field of view smaller than the body" in pair.provenance["warning"]


# Noise realizations ----------------------------------------------------------------------------------------------------------


def test_without_realizations_there_is_no_unit_noise(tmp_path):
    pair = simulated(save(tmp_path, "a.nii", cylinder()))[0].make()
    assert (pair.noise, pair.noise_model) == ((), {})


def test_unit_noise_of_a_scan_makes_the_images_of_any_dose(tmp_path):
    path = save(tmp_path, "a.nii", cylinder(padding=-2000))
    pair = simulated(path, realizations=3)[0].make()
    units = [make() for make in pair.noise]
    assert len(units) == 3
    for unit in units:
        assert (unit[RADIUS > 48] == 0).all()
        # The image has sqrt(3) times the noise of full dose, which noise realization has; each from deviates of its own.
        assert added(pair).std() / unit[RADIUS < 20].std() == pytest.approx(np.sqrt(3), rel=0.1)
    volumes = [unit[RADIUS < 20].ravel() for unit in units] + [added(pair).ravel()]
    assert np.abs(np.corrcoef(volumes) - np.eye(4)).max() < 0.2
    model = pair.noise_model
    assert (model["noise_free"], model["incident_photons"], model["floor_hu"]) == (False, PHOTONS, -1024.0)
    assert len(set(model["seeds"])) == 3


def test_unit_noise_does_not_depend_on_dose_or_number(tmp_path):
    path = save(tmp_path, "a.nii", cylinder())
    one = simulated(path, realizations=1)[0].make().noise[0]()
    again = simulated(path, realizations=2, dose_fraction=0.1)[0].make().noise[0]()
    np.testing.assert_array_equal(one, again)


def test_phantoms_unit_noise_is_for_a_noise_free_truth():
    pair = phantoms(1, realizations=1)[0].make()
    unit = pair.noise[0]()
    air = pair.label > -900
    assert pair.noise_model["noise_free"] is True
    assert (pair.image - pair.label)[air].std() / unit[air].std() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("kind", ["scan", "phantom"])
def test_the_last_realizations_are_by_the_direct_route(tmp_path, kind):
    def made(photon_counts):
        options = {"realizations": 3, "photon_counts": photon_counts}
        if kind == "phantom":
            return phantoms(1, **options)[0].make()
        return simulated(save(tmp_path, "a.nii", cylinder()), **options)[0].make()

    pair, formula = made(1), made(0)
    for number in range(2):
        np.testing.assert_array_equal(pair.noise[number](), formula.noise[number]())
    photon_counts, same_deviates = pair.noise[2](), formula.noise[2]()
    inside = pair.label > -500
    # So few photons at a quarter of the dose that electronic noise of 100 photons^2 counts.
    assert 1.1 < photon_counts[inside].std() / same_deviates[inside].std() < 3
    assert (pair.noise_model["photon_counts"], pair.noise_model["counts_at_dose"]) == (1, 0.25)
    assert "photon_counts" not in formula.noise_model
