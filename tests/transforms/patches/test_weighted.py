import numpy as np
import pytest
import torch

from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.patches import weighted as weighted_patches
from ct_cncl.transforms.patches.patch_pairs import PatchPairs, mapped_volume
from ct_cncl.transforms.patches.weighted import WeightedPatchPairs

OPTIONS = {"patch_size": 24, "patches_per_epoch": 8, "seed": 3}


@pytest.fixture
def data(tiny_dataset):
    return read_datalist(tiny_dataset)["training"]


@pytest.fixture
def disc(monkeypatch):
    """A body that is known."""

    def mask(hu):
        x, y = np.mgrid[: hu.shape[0], : hu.shape[1]]
        return np.hypot(x - 20, y - 10) < 15

    monkeypatch.setattr(weighted_patches, "body_mask", mask)
    return mask


def test_weights_are_cut_and_turned_as_the_image(data, disc):
    pairs = WeightedPatchPairs(data, air_weight=0.25, **OPTIONS)
    for number in range(20):
        patch = pairs.draw(number)
        entry, _ = pairs.slices[patch.slice_number]
        plane = np.where(disc(mapped_volume(entry["label"])[:, :, 0]), 1.0, 0.25)
        plane = plane[patch.x : patch.x + 24, patch.y : patch.y + 24]
        plane = plane[::-1] if patch.flip_x else plane
        plane = plane[:, ::-1] if patch.flip_y else plane
        plane = plane.T if patch.transpose else plane
        weight = pairs[number]["weight"]
        assert weight.dtype == torch.float32
        assert np.array_equal(weight[0].numpy(), plane.astype(np.float32))


def test_images_are_those_without_weights(data):
    plain, weighted = PatchPairs(data, **OPTIONS), WeightedPatchPairs(data, air_weight=0.5, **OPTIONS)
    for number in range(4):
        for key in ("image", "label"):
            assert torch.equal(plain[number][key], weighted[number][key])


def test_each_slice_has_its_own_body_and_is_worked_out_once(data, monkeypatch):
    calls = []

    def counting(hu):
        calls.append(hu.tobytes())
        return body_mask(hu)

    monkeypatch.setattr(weighted_patches, "body_mask", counting)
    pairs = WeightedPatchPairs(data, air_weight=0.0, **OPTIONS)
    for number in range(30):
        _ = pairs[number]
    assert len(calls) == len(set(calls)) == len({pairs.draw(number).slice_number for number in range(30)})


@pytest.mark.parametrize("air_weight", [-0.1, 1.1])
def test_bad_weight(data, air_weight):
    with pytest.raises(ValueError, match="from 0 to 1"):
        WeightedPatchPairs(data, air_weight=air_weight, **OPTIONS)
