import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.dose import DoseDraw, RandomDose, open_noise, pair_at_dose
from ct_cncl.transforms.patches.patch_pairs import PatchPairs
from ct_cncl.transforms.physics.noise_realizations import noise_factor

RANGE = (0.1, 0.5)
STEP = 0.25
LABEL = (np.arange(20 * 16 * 3) % 700).reshape(20, 16, 3).astype(np.int16)
NOISE = np.random.default_rng(0).integers(-200, 200, (3, 20, 16, 3)).astype(np.int16)


def write(path, volume, step=None):
    image = nib.Nifti1Image(volume, np.eye(4))
    if step is not None:
        image.header.set_slope_inter(step, 0.0)
    nib.save(image, path)
    return str(path)


def entry(folder, name="a", realizations=3, label=LABEL, noise_free=False, floor_hu=-1024.0):
    noise = [write(folder / f"{name}_noise{k}.nii", NOISE[k], STEP) for k in range(realizations)]
    return {
        "source": f"scan-{name}",
        "image": write(folder / f"{name}_image.nii", np.full_like(label, -77)),
        "label": write(folder / f"{name}_label.nii", label),
        "noise": noise,
        "noise_model": {"noise_free": noise_free, "floor_hu": floor_hu},
    }


def pairs(data, **options):
    return PatchPairs(data, **{"patch_size": 8, "patches_per_epoch": 40, "seed": 5, "dose_range": RANGE, **options})


def turned_back(hu, place):
    hu = hu[0].numpy()
    hu = hu.T if place.transpose else hu
    hu = np.flip(hu, 0) if place.flip_x else hu
    return np.flip(hu, 1) if place.flip_y else hu


def at(volume, place):
    return volume[place.x : place.x + 8, place.y : place.y + 8, place.slice_number].astype(np.float64)


# What a pair at a dose is --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaussian():
    """A scan with noise of deviation 1 (full dose) on 0, and two realisations of its noise realization."""
    rng = np.random.default_rng(0)
    return rng.normal(size=400_000), [rng.normal(size=400_000) for _ in range(2)]


@pytest.mark.parametrize("a", [0.5, 0.25, 0.1])
def test_the_image_has_the_noise_of_its_dose(gaussian, a):
    scan, unit = gaussian
    image, target = pair_at_dose(scan, unit[:1], DoseDraw(a, 1.0, (0,)), noise_free=False, floor_hu=-1024.0)
    assert image.std() == pytest.approx(np.sqrt(1 / a), rel=0.01)
    assert target is not None
    np.testing.assert_array_equal(target, scan)


@pytest.mark.parametrize(("a", "b"), [(0.25, 0.5), (0.5, 0.1), (0.1, 1.0)])
@pytest.mark.parametrize("noise_free", [False, True])
def test_nested_doses_have_the_noise_of_their_doses_and_the_ratio_of_a_real_pair(gaussian, a, b, noise_free):
    scan, unit = gaussian
    scan = np.zeros_like(scan) if noise_free else scan
    image, target = pair_at_dose(scan, unit, DoseDraw(a, b, (0, 1)), noise_free=noise_free, floor_hu=-1024.0)
    assert target.std() == pytest.approx(np.sqrt(1 / b), rel=0.01)
    assert image.std() == pytest.approx(np.sqrt(1 / (a * b)), rel=0.01)
    assert (image - target).std() / target.std() == pytest.approx(np.sqrt((1 - a) / a), rel=0.01)
    assert abs(np.corrcoef(image - target, target)[0, 1]) < 0.01


def test_a_noise_free_scan_gets_all_the_noise_of_its_dose(gaussian):
    _, unit = gaussian
    image, _ = pair_at_dose(np.zeros(400_000), unit[:1], DoseDraw(0.25, 1.0, (0,)), noise_free=True, floor_hu=-1024.0)
    assert image.std() == pytest.approx(2.0, rel=0.01)


def test_both_are_cut_off_only_in_the_end():
    """Cut off before the second noise, image and target would differ by less than they should."""
    label, unit = np.full(4, -1000.0), [np.array([50.0, 90.0, 10.0, 0.0]), np.array([-60.0, -60.0, -60.0, 0.0])]
    image, target = pair_at_dose(label, unit, DoseDraw(0.5, 0.5, (0, 1)), noise_free=False, floor_hu=-1024.0)
    assert target.tolist() == [-1024.0, -1024.0, -1024.0, -1000.0]
    np.testing.assert_allclose(image, [-1060 + np.sqrt(2) * 50, -1060 + np.sqrt(2) * 90, -1024, -1000])


# What is drawn -------------------------------------------------------------------------------------------------------


def test_doses_are_log_uniform_and_realisations_differ():
    dose, generator = RandomDose((0.05, 0.8), (0.2, 0.8)), np.random.default_rng(0)
    draws = [dose.draw(generator, 3) for _ in range(3000)]
    np.testing.assert_allclose(np.quantile([d.fraction for d in draws], [0.25, 0.5, 0.75]), [0.1, 0.2, 0.4], rtol=0.1)
    np.testing.assert_allclose(np.median([d.target_fraction for d in draws]), 0.4, rtol=0.1)
    chosen = [d.realizations for d in draws]
    assert set(chosen) == {(i, j) for i in range(3) for j in range(3) if i != j}
    assert min(chosen.count(pair) for pair in set(chosen)) > 400


def test_ranges_that_are_none_are_refused():
    for bad in ((0.5, 0.1), (0.0, 1.0)):
        with pytest.raises(ValueError, match="Expected two dose fractions"):
            RandomDose(bad)
        with pytest.raises(ValueError, match="Expected two dose fractions"):
            RandomDose(RANGE, bad)


# Patches -------------------------------------------------------------------------------------------------------------


def test_a_patch_is_the_label_and_its_scaled_noise_in_network_units(tmp_path):
    dataset = pairs([entry(tmp_path)])
    doses, used = [], set()
    for number in range(60):
        place, item = dataset.draw(number), dataset[number]
        label, unit = at(LABEL, place), at(NOISE[place.dose.realizations[0]], place) * STEP
        np.testing.assert_array_equal(turned_back(to_hu(item["label"]), place), label)
        expected = label + noise_factor(place.dose.fraction) * unit
        np.testing.assert_allclose(turned_back(to_hu(item["image"]), place), expected, atol=1e-2)
        assert item["image"].dtype == item["label"].dtype == torch.float32
        doses.append(place.dose.fraction)
        used.add(place.dose.realizations)
    assert RANGE[0] <= min(doses) < 0.15
    assert 0.4 < max(doses) <= RANGE[1]
    assert used == {(0,), (1,), (2,)}


def test_nested_patches(tmp_path):
    dataset = pairs([entry(tmp_path, realizations=2)], nested_dose_range=(0.3, 0.9))
    for number in range(30):
        place, item = dataset.draw(number), dataset[number]
        dose = place.dose
        first, second = (at(NOISE[k], place) * STEP for k in dose.realizations)
        target = at(LABEL, place) + noise_factor(dose.target_fraction) * second
        np.testing.assert_allclose(turned_back(to_hu(item["label"]), place), target, atol=1e-2)
        image = target + noise_factor(dose.fraction, of=dose.target_fraction) * first
        np.testing.assert_allclose(turned_back(to_hu(item["image"]), place), image, atol=1e-2)
        assert 0.3 <= dose.target_fraction <= 0.9


def test_a_noise_free_label_and_its_floor_come_from_the_entry(tmp_path):
    low = np.full_like(LABEL, -1000)
    dataset = pairs([entry(tmp_path, label=low, noise_free=True, floor_hu=-1010.0)])
    place, item = dataset.draw(0), dataset[0]
    unit = at(NOISE[place.dose.realizations[0]], place) * STEP
    expected = np.maximum(-1000 + np.sqrt(1 / place.dose.fraction) * unit, -1010)
    np.testing.assert_allclose(turned_back(to_hu(item["image"]), place), expected, atol=1e-2)


def test_item_depends_on_seed_and_number_only(tmp_path):
    data = [entry(tmp_path)]
    forward, backward = (pairs(data, nested_dose_range=(0.3, 0.9)) for _ in range(2))
    items = [forward[number] for number in range(30)]
    for number in reversed(range(30)):
        for key in ("image", "label"):
            assert torch.equal(backward[number][key], items[number][key])
    other = pairs(data, seed=6, nested_dose_range=(0.3, 0.9))
    assert sum(torch.equal(other[number]["image"], items[number]["image"]) for number in range(30)) == 0


def test_places_are_those_of_a_training_without_random_doses(tmp_path):
    data = [entry(tmp_path)]
    plain = pairs(data, dose_range=None)
    for number in range(20):
        assert pairs(data).draw(number)._replace(dose=None) == plain.draw(number)
        assert (to_hu(plain[number]["image"]) == -77).all()


def test_workers_change_nothing(tmp_path):
    data = [entry(tmp_path)]
    batches = [
        torch.cat([item["image"] for item in DataLoader(pairs(data, patches_per_epoch=6), batch_size=2, num_workers=n)])
        for n in (0, 2)
    ]
    assert torch.equal(*batches)


# What is refused -----------------------------------------------------------------------------------------------------


def test_entries_without_enough_noise_are_refused(tmp_path):
    data = [entry(tmp_path, "a"), entry(tmp_path, "b", realizations=1)]
    assert len(pairs(data)) == 40
    with pytest.raises(DataError, match=r"Expected 2 or more .* scan-b.*got 1.*--realizations 2"):
        pairs(data, nested_dose_range=RANGE)
    del data[1]["noise"]
    with pytest.raises(DataError, match=r"noise realization for scan-b.*got 0.*--realizations 1.*dose_range to null"):
        pairs(data)
    assert len(pairs(data, dose_range=None)) == 40


def test_nesting_needs_a_dose_range(tmp_path):
    with pytest.raises(ValueError, match="Expected a dose_range beside nested_dose_range"):
        pairs([entry(tmp_path)], dose_range=None, nested_dose_range=RANGE)


def test_noise_of_another_shape_or_kind_is_refused(tmp_path):
    data = [entry(tmp_path)]
    data[0]["noise"] = [write(tmp_path / "short.nii", NOISE[0][:, :, :2], STEP)]
    with pytest.raises(DataError, match=r"label's shape \(20, 16, 3\), but .*short.nii has \(20, 16, 2\)"):
        pairs(data)
    for name, volume in (("f.nii", NOISE[0].astype(np.float32)), ("c.nii.gz", NOISE[0])):
        with pytest.raises(DataError, match=f"{name} to be uncompressed int16 noise realization"):
            open_noise(write(tmp_path / name, volume))


def test_noise_prepared_anew_is_read_anew(tmp_path):
    path = write(tmp_path / "n.nii", NOISE[0], 0.5)
    assert open_noise(path).step_hu == 0.5
    write(tmp_path / "m.nii", NOISE[1], 2.0)
    (tmp_path / "m.nii").replace(tmp_path / "n.nii")
    assert open_noise(path).step_hu == 2.0
    np.testing.assert_array_equal(open_noise(path).values, NOISE[1])
