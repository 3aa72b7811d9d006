import numpy as np
import pytest
import torch
from tiny_pairs import entry
from tiny_patches import pairs

from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.patches.cut import RandPatch, RandPatchd


def test_places_without_body_are_drawn_again():
    """A 16 x 16 body in a corner of 64 x 64; of several slices the centre one says where it is."""
    image = np.full((3, 64, 64), -1000.0, np.float32)
    image[1, :16, :16] = 0

    def share(body_fraction):
        transform = RandPatch(8, body_fraction=body_fraction).set_random_state(seed=0)
        return np.mean([transform(image)[1].max() > -500 for _ in range(200)])

    assert share(0.0) < 0.2
    assert share(0.1) > 2.5 * share(0.0)


def test_a_slice_of_air_still_gives_patches(tmp_path):
    data = [entry(tmp_path, "a", np.full((16, 16, 1), -1000, np.int16))]
    assert (to_hu(pairs(data)[3]["label"]) == -1000).all()


def test_all_keys_are_cut_at_one_place_of_one_image():
    image = torch.arange(3 * 20 * 30.0).reshape(3, 20, 30)
    items = {"label": image, "image": image + 0.5, "noise": image.expand(2, 3, 20, 30)[:, 0], "name": "x"}
    transform = RandPatchd(["image", "label", "noise"], 8).set_random_state(seed=1)
    seen = set()
    for _ in range(300):
        out = transform(items)
        x, y = transform.transform.place
        assert torch.equal(out["label"], image[:, x : x + 8, y : y + 8])
        assert torch.equal(out["image"], out["label"] + 0.5)
        assert out["noise"].shape == (2, 8, 8)
        assert out["name"] == "x"
        seen.add((x, y))
    assert {x for x, _ in seen} == set(range(13))
    assert {y for _, y in seen} == set(range(23))


def test_as_much_is_cut_as_the_smallest_zoom_needs():
    assert RandPatch(96, zoom_range=[0.7, 1.5])(torch.zeros(1, 200, 200)).shape == (1, 138, 138)
    assert RandPatch(96, zoom_range=[1.1, 1.5])(torch.zeros(1, 200, 200)).shape == (1, 96, 96)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="at least 138 x 138 pixels .patch_size, zoom_range., but got 100 x 200"):
        RandPatch(96, zoom_range=[0.7, 1.5])(torch.zeros(1, 100, 200))
    with pytest.raises(ValueError, match="body_fraction from 0 to 1, but got 8 and 2"):
        RandPatch(8, body_fraction=2)
