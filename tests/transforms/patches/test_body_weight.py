import numpy as np
import pytest
import torch
from tiny_patches import drawn, pairs

from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.dataset.volume_store import mapped_volume
from ct_cncl.transforms.patches import body_weight as module
from ct_cncl.transforms.patches.body_weight import BodyWeight, BodyWeightd


@pytest.fixture
def data(tiny_dataset):
    return read_datalist(tiny_dataset)["training"]


@pytest.fixture
def disc(monkeypatch):
    """A body that is known."""

    def mask(hu):
        x, y = np.mgrid[: hu.shape[0], : hu.shape[1]]
        return np.hypot(x - 20, y - 10) < 15

    monkeypatch.setattr(module, "body_mask", mask)
    return mask


def weighted(data, air_weight, **options):
    return pairs(data, 24, seed=3, patches={"air_weight": air_weight}, **options)


def test_weights_are_cut_and_turned_as_the_image(data, disc):
    dataset = weighted(data, 0.25)
    for number in range(20):
        place = drawn(dataset, number)
        entry, _ = dataset.slices[place.slice_number]
        plane = np.where(disc(mapped_volume(entry["label"])[:, :, 0]), 1.0, 0.25)
        plane = plane[place.x : place.x + 24, place.y : place.y + 24]
        plane = plane[::-1] if place.turn.flip_x else plane
        plane = plane[:, ::-1] if place.turn.flip_y else plane
        plane = plane.T if place.turn.transpose else plane
        weight = place.item["weight"]
        assert weight.dtype == torch.float32
        assert np.array_equal(weight[0].numpy(), plane.astype(np.float32))


def test_images_are_those_without_weights(data):
    plain, dataset = weighted(data, None), weighted(data, 0.5)
    for number in range(4):
        assert "weight" not in plain[number]
        for key in ("image", "label"):
            assert torch.equal(plain[number][key], dataset[number][key])


def test_each_slice_has_its_own_body_and_is_worked_out_once(data, monkeypatch):
    calls = []

    def counting(hu):
        calls.append(hu.tobytes())
        return body_mask(hu)

    monkeypatch.setattr(module, "body_mask", counting)
    dataset = weighted(data, 0.0)
    for number in range(30):
        _ = dataset[number]
    assert len(calls) == len(set(calls)) == len({dataset.slice_number(number) for number in range(30)})


def test_alone_it_remembers_nothing(disc):
    """Two slices without a name may be different ones."""
    transform = BodyWeightd("image", 0.5)
    first = transform({"image": torch.zeros(1, 40, 30)})
    assert torch.equal(first["weight"][0], torch.from_numpy(np.where(disc(np.zeros((40, 30))), 1.0, 0.5)).float())
    assert transform({"image": np.zeros((1, 30, 40), np.float32)})["weight"].shape == (1, 30, 40)
    assert transform.bodies == {}
    assert transform({"image": torch.zeros(2, 1, 40, 30)})["weight"].shape == (2, 1, 40, 30)


@pytest.mark.parametrize("air_weight", [-0.1, 1.1])
def test_bad_weight(air_weight):
    with pytest.raises(ValueError, match="from 0 to 1"):
        BodyWeight(air_weight)
