import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_patches import drawn, pairs

from ct_cncl.transforms.patches.pixel_size import RandPixelSize, RandPixelSized, check_range, resampled


def test_one_size_changes_nothing():
    image = torch.randn(1, 1, 8, 8)
    assert resampled(image, 8) is image
    assert torch.equal(RandPixelSize(8, zoom_range=None)(image[0]), image[0])


@pytest.mark.parametrize("side", [12, 40])
def test_resampling_keeps_lines(side):
    """A slope in HU a pixel stays a slope, smaller or larger by the change of pixel size, away from the borders."""
    image = torch.arange(24.0).expand(1, 1, 24, 24)
    found = resampled(image, side)[0, 0, side // 2, 4 * side // 24 : -4 * side // 24]
    torch.testing.assert_close(found.diff(), torch.full_like(found.diff(), 24 / side), atol=1e-4, rtol=0)


def test_zoom_is_log_uniform(data):
    dataset = pairs(data, 10, patches={"zoom_range": [0.84, 4.0]})
    sides = np.array([drawn(dataset, number).side for number in range(400)])
    assert np.mean(sides <= 10 / np.sqrt(0.84 * 4.0)) == pytest.approx(0.5, abs=0.07)
    assert (sides.min(), sides.max()) == (3, 12)


@pytest.mark.parametrize("bounds", [[0.5], [0.8, 0.7], [-1.0, 1.0], [0.5, float("nan")]])
def test_ranges_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="two ordered numbers above -1"):
        check_range("sharpness_range", bounds, above=-1)


def test_zoom_that_needs_more_than_the_slice_is_refused(data):
    with pytest.raises(ValueError, match="at least 20 x 20"):
        pairs(data, 10, patches={"zoom_range": [0.5, 1.0]}).prepare()


def test_the_centre_is_resampled_and_too_small_a_patch_is_refused():
    image = torch.rand(2, 20, 20)
    transform = RandPixelSize(16, zoom_range=[0.8, 2.0]).set_random_state(seed=0)
    for _ in range(10):
        result = transform(image)
        first = (20 - transform.side) // 2
        cut = image[None, :, first : first + transform.side, first : first + transform.side]
        assert torch.equal(result, resampled(cut, 16)[0])
    with pytest.raises(ValueError, match="RandPatchd the same zoom_range"):
        transform(torch.rand(1, 7, 7))


def test_dictionary_version_gives_all_keys_one_size_and_masks_no_new_values():
    image = torch.rand(1, 20, 20)
    items = {"image": MetaTensor(image, meta={"name": "x"}), "mask": (image > 0.5).float().numpy()}
    modes = ["bicubic", "nearest-exact"]
    transform = RandPixelSized(["image", "mask"], 16, zoom_range=[0.8, 1.3], mode=modes).set_random_state(seed=3)
    out = transform(items)
    assert out["image"].shape == out["mask"].shape == (1, 16, 16)
    assert out["image"].meta["name"] == "x"
    assert isinstance(out["mask"], np.ndarray)
    assert set(np.unique(out["mask"])) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="bicubic, nearest-exact, but got 'cubic'"):
        RandPixelSize(8, zoom_range=None, mode="cubic")
