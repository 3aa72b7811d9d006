import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from tiny_pairs import OFFSET, entry, equal, write
from tiny_patches import drawn, pairs, turned_back
from torch.utils.data import DataLoader

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.dataset.volume_store import mapped_volume
from ct_cncl.transforms.patches.cut import RandPatchd
from ct_cncl.transforms.patches.network_units import HUToNetworkd
from ct_cncl.transforms.patches.padding import PaddingMaskd
from ct_cncl.transforms.patches.patch_pairs import PatchPairs, SampleNumbers
from ct_cncl.transforms.patches.slice_pairs import SliceIndex, SlicePairs, all_slices, spread_slices

UNITS = Compose([PaddingMaskd("label"), HUToNetworkd(("image", "label"))])
"""``validate#preprocessing`` of train.json."""

# Volumes -------------------------------------------------------------------------------------------------------------


def test_volumes_are_memory_mapped_stored_values(data):
    volume = mapped_volume(data[0]["label"])
    assert isinstance(volume, np.memmap)
    np.testing.assert_array_equal(volume, np.arange(20 * 16 * 3).reshape(20, 16, 3))


@pytest.mark.parametrize(
    ("name", "volume"),
    [("f.nii", np.zeros((4, 4, 2), np.float32)), ("d.nii", np.zeros((4, 4, 2, 1), np.int16))],
)
def test_other_kinds_of_volumes_are_refused(tmp_path, name, volume):
    with pytest.raises(DataError, match=rf"{name} to be an uncompressed int16 volume"):
        mapped_volume(write(tmp_path / name, volume))


def test_compressed_volumes_are_refused(tmp_path):
    """Regression: they were accepted, and up to 256 of them held in memory."""
    with pytest.raises(DataError, match="uncompressed"):
        mapped_volume(write(tmp_path / "c.nii.gz", np.zeros((4, 4, 2), np.int16)))


def test_scaled_volumes_are_refused(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 1.0)
    nib.save(image, tmp_path / "s.nii")
    with pytest.raises(DataError, match="uncompressed int16"):
        mapped_volume(str(tmp_path / "s.nii"))


def test_all_slices_in_order(data):
    assert [(item.entry is data[0], item.z) for item in all_slices(data)] == [
        (True, 0),
        (True, 1),
        (True, 2),
        (False, 0),
        (False, 1),
    ]


def test_pairs_of_two_shapes_and_empty_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="list is empty"):
        all_slices([])
    bad = entry(tmp_path, "x", np.zeros((4, 4, 2), np.int16), np.zeros((4, 4, 3), np.int16))
    with pytest.raises(DataError, match=r"one shape.*\(4, 4, 3\).*\(4, 4, 2\)"):
        all_slices([bad])


# Patches -------------------------------------------------------------------------------------------------------------


def test_item_depends_on_seed_and_number_only(data):
    forward, backward = pairs(data), pairs(data, per_epoch=3)
    items = [forward[number] for number in range(60)]
    for number in reversed(range(60)):
        assert equal(backward[number], items[number])
    other = pairs(data, seed=6)
    assert sum(equal(other[number], items[number]) for number in range(60)) < 5
    assert sum(equal(items[number + 1], items[number]) for number in range(59)) < 5


def test_workers_change_nothing(data):
    alone = [item["label"] for item in DataLoader(pairs(data, per_epoch=6), batch_size=2)]
    helped = [item["label"] for item in DataLoader(pairs(data, per_epoch=6), batch_size=2, num_workers=2)]
    assert torch.equal(torch.cat(alone), torch.cat(helped))


def test_patch_is_the_cut_of_the_volume_once_it_is_turned_back(data):
    dataset = pairs(data)
    for number in range(60):
        place = drawn(dataset, number)
        source = data[0 if place.slice_number < 3 else 1]
        z = place.slice_number % 3
        for key in ("image", "label"):
            hu = to_hu(place.item[key]).numpy()
            assert hu.dtype == np.float32
            volume = np.asarray(nib.load(source[key]).dataobj)
            expected = volume[place.x : place.x + 8, place.y : place.y + 8, z]
            np.testing.assert_array_equal(turned_back(hu, place)[0], expected)


def test_image_and_label_are_aligned(data):
    for number in range(40):
        item = pairs(data)[number]
        assert torch.equal(to_hu(item["image"]) - to_hu(item["label"]), torch.full((1, 8, 8), float(OFFSET)))


def test_every_slice_orientation_and_corner_is_drawn(data):
    dataset = pairs(data)
    places = [drawn(dataset, number) for number in range(600)]
    assert {place.slice_number for place in places} == set(range(5))
    assert len({place.turn for place in places}) == 8
    first = [place for place in places if place.slice_number < 3]
    assert {place.x for place in first} == set(range(13))
    assert {place.y for place in first} == set(range(9))


def test_what_nobody_asks_for_is_not_read(tmp_path):
    """A config is built, and its properties are checked, before there are data."""
    dataset = pairs([{"image": str(tmp_path / "none.nii"), "label": str(tmp_path / "none.nii")}])
    assert len(dataset) == 40
    assert len(SampleNumbers(40)) == 40
    with pytest.raises(OSError, match="none"):
        dataset.prepare()


def test_a_patch_as_large_as_the_slice_is_the_slice(tmp_path):
    data = [entry(tmp_path, "a", np.arange(64, dtype=np.int16).reshape(8, 8, 1))]
    assert sorted(to_hu(pairs(data)[0]["label"]).flatten().tolist()) == list(range(64))


def test_slices_smaller_than_a_patch_are_refused_before_the_first(data):
    with pytest.raises(DataError, match="13 x 13 pixels.*has 12 x 18"):
        pairs(data, 13).prepare()
    with pytest.raises(ValueError, match="patch_size of at least 1"):
        RandPatchd("label", 0)
    with pytest.raises(ValueError, match="at least 1"):
        pairs(data, per_epoch=0)


def test_without_transforms_a_sample_is_a_slice_as_it_is_stored(data):
    dataset = PatchPairs(data, patches_per_epoch=4, seed=0)
    for number in range(4):
        source, z = dataset.slices[dataset.slice_number(number)]
        item = dataset[number]
        assert item["label"].dtype == torch.int16
        np.testing.assert_array_equal(item["label"][0], np.asarray(nib.load(source["label"]).dataobj)[..., z])
        assert item["slice"].endswith(f" {z}")


# Sample numbers ------------------------------------------------------------------------------------------------------


def batches(sampler, size):
    numbers = list(sampler)
    assert len(numbers) == len(sampler)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@pytest.mark.parametrize("epoch", [1, 2, 7])
def test_two_ranks_see_what_one_process_sees_batch_by_batch(epoch):
    one = SampleNumbers(24)
    two = [SampleNumbers(24, rank=rank, world_size=2) for rank in range(2)]
    for sampler in (one, *two):
        sampler.set_epoch(epoch)
    for alone, left, right in zip(batches(one, 8), batches(two[0], 4), batches(two[1], 4), strict=True):
        assert set(alone) == set(left) | set(right)
        assert not set(left) & set(right)


@pytest.mark.parametrize(("total", "world"), [(10, 1), (10, 3), (9, 2)])
def test_epochs_run_on_and_no_number_comes_twice(total, world):
    seen = []
    for epoch in range(1, 4):
        for rank in range(world):
            sampler = SampleNumbers(total, rank=rank, world_size=world)
            sampler.set_epoch(epoch)
            seen += list(sampler)
    kept = total // world * world
    assert sorted(seen) == [epoch * total + number for epoch in range(3) for number in range(kept)]


def test_the_first_epoch_starts_at_zero():
    assert list(SampleNumbers(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("total", "rank", "world"), [(4, 2, 2), (4, -1, 2), (1, 0, 2)])
def test_ranks_and_totals_that_do_not_fit_are_refused(total, rank, world):
    with pytest.raises(ValueError, match="Expected"):
        SampleNumbers(total, rank=rank, world_size=world)


# Whole slices --------------------------------------------------------------------------------------------------------


def test_slices_are_the_volumes_in_network_units(data):
    dataset = SlicePairs(data, UNITS)
    assert len(dataset) == 5
    for number, (source, z) in enumerate([(data[0], 0), (data[0], 1), (data[0], 2), (data[1], 0), (data[1], 1)]):
        for key in ("image", "label"):
            expected = np.asarray(nib.load(source[key]).dataobj)[None, :, :, z]
            np.testing.assert_array_equal(to_hu(dataset[number][key]).numpy(), expected)
        assert not dataset[number]["padding"].any()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("max_slices", [None, 3, 4, 99])
def test_the_ranks_share_the_slices_of_one_process(data, max_slices, world):
    def keys(**options):
        return [(item.entry["label"], item.z) for item in SlicePairs(data, max_slices=max_slices, **options).slices]

    shared = [key for rank in range(world) for key in keys(rank=rank, world_size=world)]
    assert sorted(shared) == sorted(keys())
    assert len(set(shared)) == min(max_slices or 5, 5)


def test_few_slices_are_spread_over_the_whole(data):
    chosen = SlicePairs(data, max_slices=3).slices
    assert [(item.entry is data[0], item.z) for item in chosen] == [(True, 0), (True, 2), (False, 1)]
    with pytest.raises(ValueError, match="max_slices of at least 1"):
        SlicePairs(data, max_slices=0)


def test_a_long_volume_does_not_outweigh_short_ones():
    """Regression: slices spread evenly over all gave ten of twelve places to the one long scan of a validation set."""
    long = [SliceIndex({"label": "long"}, z) for z in range(40)][:1]
    entries = [{"label": name} for name in "abc"]
    slices = [SliceIndex(entries[0], z) for z in range(40)] + [SliceIndex(entry, 0) for entry in entries[1:]]
    chosen = spread_slices(slices, 5)
    assert [(item.entry["label"], item.z) for item in chosen] == [("a", 0), ("a", 20), ("a", 39), ("b", 0), ("c", 0)]
    assert [item.entry["label"] for item in spread_slices(slices, 2)] == ["a", "c"]
    assert spread_slices(slices, 99) == slices
    assert spread_slices(long, 1) == long


def test_padding_is_marked_from_the_label(tmp_path):
    radius = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5, indexing="ij"))
    label = np.where(radius < 16, 40, -2000).astype(np.int16)[..., None]
    image = np.full_like(label, 40)
    item = SlicePairs([entry(tmp_path, "a", label, image)], UNITS)[0]
    np.testing.assert_array_equal(item["padding"][0].numpy(), radius >= 16)


def test_a_data_set_that_was_prepared_anew_is_read_anew(tmp_path):
    """Regression: volumes were remembered by path alone, so the old data were trained on."""
    write(tmp_path / "a.nii", np.zeros((4, 4, 2), np.int16))
    assert mapped_volume(str(tmp_path / "a.nii")).max() == 0
    write(tmp_path / "b.nii", np.ones((4, 4, 2), np.int16))
    (tmp_path / "b.nii").replace(tmp_path / "a.nii")
    assert mapped_volume(str(tmp_path / "a.nii")).min() == 1
