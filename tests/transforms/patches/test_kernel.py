import numpy as np
import pytest
import torch
from tiny_pairs import OFFSET, equal

from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.kernel import check_range, refiltered, resampled
from ct_cncl.transforms.patches.patch_pairs import PatchPairs


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
    assert resampled(image, 8) is image


@pytest.mark.parametrize("side", [12, 40])
def test_resampling_keeps_lines(side):
    """A slope in HU a pixel stays a slope, smaller or larger by the change of pixel size, away from the borders."""
    image = torch.arange(24.0).expand(1, 1, 24, 24)
    found = resampled(image, side)[0, 0, side // 2, 4 * side // 24 : -4 * side // 24]
    torch.testing.assert_close(found.diff(), torch.full_like(found.diff(), 24 / side), atol=1e-4, rtol=0)


def test_pairs_are_changed_alike(data):
    """Image minus label, a constant here, stays; a patch differs from the unchanged one."""
    plain = PatchPairs(data, patch_size=8, patches_per_epoch=4, seed=3)
    changed = PatchPairs(data, patch_size=8, patches_per_epoch=4, seed=3, sharpness_range=[0.5, 0.9])
    zoomed = PatchPairs(
        data, patch_size=8, patches_per_epoch=4, seed=3, sharpness_range=[-0.9, 0.9], zoom_range=[0.7, 1.4]
    )
    for number in range(6):
        for pairs in (changed, zoomed):
            pair = pairs[number]
            assert pair["image"].shape == (1, 8, 8)
            np.testing.assert_allclose(to_hu(pair["image"] - pair["label"]) - to_hu(torch.zeros(1)), OFFSET, atol=2e-3)
            assert equal(pair, pairs[number])
        assert changed.draw(number)._replace(sharpness=0.0) == plain.draw(number)
        assert not torch.allclose(changed[number]["label"], plain[number]["label"])
    sides = {zoomed.draw(number).side for number in range(40)}
    assert (min(sides), max(sides)) == (6, 11)


def test_zoom_is_log_uniform(data):
    pairs = PatchPairs(data, patch_size=10, patches_per_epoch=4, seed=0, zoom_range=[0.84, 4.0])
    sides = np.array([pairs.draw(number).side for number in range(400)])
    assert np.mean(sides <= 10 / np.sqrt(0.84 * 4.0)) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("bounds", [[0.5], [0.8, 0.7], [-1.0, 1.0], [0.5, float("nan")]])
def test_ranges_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="two ordered numbers above -1"):
        check_range("sharpness_range", bounds, above=-1)


def test_zoom_that_needs_more_than_the_slice_is_refused(data):
    with pytest.raises(ValueError, match="at least 20 x 20"):
        PatchPairs(data, patch_size=10, patches_per_epoch=4, seed=0, zoom_range=[0.5, 1.0])
