import numpy as np
import pytest
import torch
from tiny_pairs import OFFSET
from tiny_patches import drawn, pairs

from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.sharpness import RandSharpness, RandSharpnessd, refiltered


def wave(cycles, size=32):
    """A plane wave along the last axis with whole cycles, even about the borders that are mirrored."""
    phase = np.pi * cycles * (np.arange(size)) / (size - 1)
    return torch.from_numpy(np.tile(np.cos(phase), (size, 1)))[None, None]


@pytest.mark.parametrize("cycles", [0, 3, 16, 31])
@pytest.mark.parametrize("sharpness", [-0.6, 0.8])
def test_response_is_the_stated_one(cycles, sharpness):
    image = wave(cycles)
    response = 1 + sharpness * (1 - np.cos(np.pi * cycles / (2 * 31)) ** 4)
    torch.testing.assert_close(refiltered(image, sharpness), response * image)


def test_both_axes_are_filtered_alike():
    image = torch.randn(2, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = refiltered(image.transpose(-1, -2), 0.5).transpose(-1, -2)
    torch.testing.assert_close(refiltered(image, 0.5), turned)


def test_zero_changes_nothing():
    image = torch.randn(1, 1, 8, 8)
    assert refiltered(image, 0.0) is image


def test_pairs_are_changed_alike(data):
    """Image minus label, a constant here, stays; a patch differs from the unchanged one, whose place it has."""
    plain = pairs(data, seed=3)
    changed = pairs(data, seed=3, patches={"sharpness_range": [0.5, 0.9]})
    zoomed = pairs(data, seed=3, patches={"sharpness_range": [-0.9, 0.9], "zoom_range": [0.7, 1.4]})
    for number in range(6):
        for dataset in (changed, zoomed):
            pair = dataset[number]
            assert pair["image"].shape == (1, 8, 8)
            np.testing.assert_allclose(to_hu(pair["image"] - pair["label"]) - to_hu(torch.zeros(1)), OFFSET, atol=2e-3)
            assert torch.equal(pair["image"], dataset[number]["image"])
        one, other = drawn(changed, number), drawn(plain, number)
        assert (one.x, one.y, one.turn, one.slice_number) == (other.x, other.y, other.turn, other.slice_number)
        assert not torch.allclose(changed[number]["label"], plain[number]["label"])
    sides = {drawn(zoomed, number).side for number in range(40)}
    assert (min(sides), max(sides)) == (6, 11)


def test_array_and_dictionary_version_do_the_same_to_one_image():
    image = torch.rand(2, 12, 9)
    one = RandSharpness([-0.5, 0.8]).set_random_state(seed=2)
    both = RandSharpnessd(["a", "b"], [-0.5, 0.8]).set_random_state(seed=2)
    for _ in range(3):
        result, items = one(image), both({"a": image, "b": image + 1, "c": 7})
        assert torch.equal(result, refiltered(image[None], one.sharpness)[0])
        torch.testing.assert_close(items["a"], result)
        torch.testing.assert_close(items["b"], result + 1)
        assert items["c"] == 7
    assert RandSharpnessd("a", None)({"a": image})["a"] is image
