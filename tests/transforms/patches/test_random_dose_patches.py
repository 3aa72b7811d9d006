import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_patches import drawn
from tiny_patches import pairs as bundle_pairs
from tiny_patches import turned_back as volume_order
from torch.utils.data import DataLoader

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.realizations import Realizations, open_noise
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


def pairs(data, *, dose_range=RANGE, nested_dose_range=None, **options):
    doses = {"dose_range": dose_range, "nested_dose_range": nested_dose_range}
    return bundle_pairs(data, patches=doses, **options)


def turned_back(hu, place):
    return volume_order(hu.numpy(), place)[0]


def at(volume, place):
    return volume[place.x : place.x + 8, place.y : place.y + 8, place.slice_number].astype(np.float64)


# Patches -------------------------------------------------------------------------------------------------------------


def test_a_patch_is_the_label_and_its_scaled_noise_in_network_units(tmp_path):
    dataset = pairs([entry(tmp_path)])
    doses, used = [], set()
    for number in range(60):
        place = drawn(dataset, number)
        item = place.item
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
        place = drawn(dataset, number)
        item = place.item
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
    place = drawn(dataset, 0)
    item = place.item
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
        one, other = drawn(pairs(data), number), drawn(plain, number)
        assert (one.x, one.y, one.turn, one.slice_number) == (other.x, other.y, other.turn, other.slice_number)
        assert (to_hu(plain[number]["image"]) == -77).all()


def test_workers_change_nothing(tmp_path):
    data = [entry(tmp_path)]
    batches = [
        torch.cat([item["image"] for item in DataLoader(pairs(data, per_epoch=6), batch_size=2, num_workers=n)])
        for n in (0, 2)
    ]
    assert torch.equal(*batches)


# What is refused -----------------------------------------------------------------------------------------------------


def test_entries_without_enough_noise_are_refused(tmp_path):
    data = [entry(tmp_path, "a"), entry(tmp_path, "b", realizations=1)]
    pairs(data).prepare()
    with pytest.raises(DataError, match=r"Expected 2 or more .* scan-b.*got 1.*--realizations 2"):
        pairs(data, nested_dose_range=RANGE).prepare()
    del data[1]["noise"]
    with pytest.raises(DataError, match=r"noise realizations for scan-b.*got 0.*--realizations 1.*dose_range to null"):
        pairs(data).prepare()
    pairs(data, dose_range=None).prepare()


def test_noise_of_another_shape_or_kind_is_refused(tmp_path):
    data = [entry(tmp_path)]
    data[0]["noise"] = [write(tmp_path / "short.nii", NOISE[0][:, :, :2], STEP)]
    with pytest.raises(DataError, match=r"label's shape \(20, 16, 3\), but .*short.nii has \(20, 16, 2\)"):
        pairs(data).prepare()
    for name, volume in (("f.nii", NOISE[0].astype(np.float32)), ("c.nii.gz", NOISE[0])):
        with pytest.raises(DataError, match=f"{name} to be an uncompressed int16 noise realization"):
            open_noise(write(tmp_path / name, volume))


def test_noise_prepared_anew_is_read_anew(tmp_path):
    path = write(tmp_path / "n.nii", NOISE[0], 0.5)
    assert open_noise(path).step_hu == 0.5
    write(tmp_path / "m.nii", NOISE[1], 2.0)
    (tmp_path / "m.nii").replace(tmp_path / "n.nii")
    assert open_noise(path).step_hu == 2.0
    np.testing.assert_array_equal(open_noise(path).values, NOISE[1])


def test_realizations_are_cut_without_being_read():
    stored = [torch.arange(24, dtype=torch.int16).reshape(1, 4, 6) + k for k in range(2)]
    noise = Realizations(stored, [0.5, 0.25], noise_free=True, floor_hu=-2000.0)
    cut = noise[..., 1:3, 2:4]
    assert cut.stored[1].untyped_storage().data_ptr() == stored[1].untyped_storage().data_ptr()
    assert torch.equal(cut.hu(1), 0.25 * stored[1][:, 1:3, 2:4].float())
    assert (len(cut), cut.shape, cut.noise_free, cut.floor_hu) == (2, (2, 2, 2), True, -2000.0)
