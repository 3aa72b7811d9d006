"""Neighbouring slices beside the one that is denoised."""

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_patches import drawn, pairs, turned_back

from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.centre import CentreSlice
from ct_cncl.transforms.patches.padding import PaddingMaskd
from ct_cncl.transforms.patches.slice_pairs import SlicePairs
from ct_cncl.transforms.physics.noise_realizations import noise_factor

STEP = 0.25
DEPTH = 4
LABEL = (np.arange(20 * 16 * DEPTH) % 700).reshape(20, 16, DEPTH).astype(np.int16)
IMAGE = np.random.default_rng(1).integers(-200, 900, LABEL.shape).astype(np.int16)
NOISE = np.random.default_rng(0).integers(-200, 200, (2, *LABEL.shape)).astype(np.int16)
AROUND = {0: [0, 0, 1], 1: [0, 1, 2], 2: [1, 2, 3], 3: [2, 3, 3]}
"""Written down, not worked out: the ends are repeated."""


def write(path, volume, step=None):
    image = nib.Nifti1Image(volume, np.eye(4))
    if step is not None:
        image.header.set_slope_inter(step, 0.0)
    nib.save(image, path)
    return str(path)


@pytest.fixture
def data(tmp_path):
    return [
        {
            "source": "scan",
            "image": write(tmp_path / "image.nii", IMAGE),
            "label": write(tmp_path / "label.nii", LABEL),
            "noise": [write(tmp_path / f"noise{k}.nii", NOISE[k], STEP) for k in range(2)],
            "noise_model": {"noise_free": False, "floor_hu": -1024.0},
        }
    ]


def at(volume, place, slices):
    return np.moveaxis(volume[place.x : place.x + 8, place.y : place.y + 8][..., slices], -1, 0).astype(np.float64)


DOSES = {
    "stored": {},
    "dose": {"dose_range": [0.1, 0.5]},
    "nested": {"dose_range": [0.1, 0.5], "nested_dose_range": [0.3, 0.9]},
    "kernel": {"dose_range": [0.1, 0.5], "sharpness_range": [-0.5, 0.5], "zoom_range": [0.8, 1.2]},
}


@pytest.mark.parametrize("name", DOSES)
def test_the_centre_and_the_label_are_those_of_single_slices(name, data):
    """To the bit, for the same number; 5 slices have the 3 in their middle."""
    one, three, five = (pairs(data, context_slices=count, patches=DOSES[name]) for count in (1, 3, 5))
    for number in range(40):
        alone, context, wide = one[number], three[number], five[number]
        assert drawn(three, number).__dict__ | {"item": 0} == drawn(one, number).__dict__ | {"item": 0}
        assert context["image"].shape == (3, 8, 8)
        assert torch.equal(context["image"][1:2], alone["image"])
        assert torch.equal(context["label"], alone["label"])
        assert torch.equal(wide["image"][1:4], context["image"])


def test_every_slice_has_the_same_crop_and_the_ends_are_repeated(data):
    dataset, seen = pairs(data, context_slices=3), set()
    for number in range(40):
        place = drawn(dataset, number)
        hu = turned_back(to_hu(place.item["image"]).numpy(), place)
        np.testing.assert_array_equal(hu, at(IMAGE, place, AROUND[place.slice_number]))
        seen.add(place.slice_number)
    assert seen == {0, 1, 2, 3}


def test_every_slice_has_the_same_dose_and_its_own_noise(data):
    dataset = pairs(data, context_slices=3, patches=DOSES["dose"])
    for number in range(20):
        place = drawn(dataset, number)
        around = AROUND[place.slice_number]
        (realization,) = place.dose.realizations
        scale = noise_factor(place.dose.fraction, noise_free=False) * STEP
        expected = at(LABEL, place, around) + scale * at(NOISE[realization], place, around)
        hu = turned_back(to_hu(place.item["image"]).numpy(), place)
        np.testing.assert_allclose(hu, expected.clip(-1024), atol=2e-3)


def test_with_nested_doses_the_neighbours_have_the_targets_noise_too(data):
    dataset = pairs(data, context_slices=3, patches=DOSES["nested"])
    for number in range(20):
        place = drawn(dataset, number)
        around, dose = AROUND[place.slice_number], place.dose
        target = noise_factor(dose.target_fraction, noise_free=False) * STEP
        image = noise_factor(dose.fraction, of=dose.target_fraction, noise_free=False) * STEP
        first, second = (at(NOISE[k], place, around) for k in dose.realizations)
        expected = at(LABEL, place, around) + image * first + target * second
        hu = turned_back(to_hu(place.item["image"]).numpy(), place)
        np.testing.assert_allclose(hu, expected.clip(-1024), atol=2e-3)


def test_whole_slices_with_their_neighbours(data):
    alone, context = (SlicePairs(data, PaddingMaskd("label"), context_slices=count) for count in (1, 3))
    assert len(context) == len(alone) == DEPTH
    for z in range(DEPTH):
        np.testing.assert_array_equal(
            context[z]["image"].numpy(), np.moveaxis(IMAGE[..., AROUND[z]], -1, 0).astype(np.float32)
        )
        for key in ("label", "padding"):
            assert torch.equal(context[z][key], alone[z][key])


def test_a_volume_of_one_slice_is_its_own_neighbour(tmp_path):
    entry = {key: write(tmp_path / f"{key}.nii", LABEL[..., :1]) for key in ("image", "label")}
    for dataset in (pairs([entry], context_slices=3), SlicePairs([entry], context_slices=3)):
        image = dataset[0]["image"]
        assert torch.equal(image, image[1:2].expand(3, -1, -1))


@pytest.mark.parametrize("count", [0, 2, -1])
@pytest.mark.parametrize("kind", [pairs, SlicePairs])
def test_an_even_number_of_slices_has_no_centre(kind, count, data):
    with pytest.raises(ValueError, match="odd number"):
        kind(data, context_slices=count)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 5, 4, 6)])
def test_the_centre_slice_is_a_view(shape):
    image = torch.rand(shape)
    centre = CentreSlice()(image)
    assert torch.equal(centre, image[..., shape[-3] // 2, :, :].unsqueeze(-3))
    assert centre.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
