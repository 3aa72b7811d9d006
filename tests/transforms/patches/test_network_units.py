import numpy as np
import torch
from monai.data import MetaTensor

from ct_cncl.transforms.patches.network_units import HUToNetworkd, KeepPaddingd, NetworkToHUd

AFFINE = torch.diag(torch.tensor([-0.5, 0.5, 2.0, 1.0], dtype=torch.float64))
OTHER = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
RADIUS = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5, indexing="ij"))


def test_there_and_back_keeps_hu_affine_and_other_keys():
    hu = torch.arange(-3024, 20001, dtype=torch.float32)[None, :, None, None]
    data = {"image": MetaTensor(hu, affine=AFFINE), "label": MetaTensor(hu + 1, affine=AFFINE), "name": "x"}
    units = HUToNetworkd(("image", "label"))(data)
    assert torch.equal(units["image"].as_tensor(), (hu + 1024) / 4096)
    back = NetworkToHUd(("image",))(units)
    assert torch.equal(back["image"].as_tensor(), hu)
    assert torch.equal(back["label"].as_tensor(), (hu + 1 + 1024) / 4096)
    assert torch.equal(back["image"].affine, AFFINE)
    assert back["name"] == "x"
    assert torch.equal(data["image"].as_tensor(), hu)


def test_padding_leaves_as_it_came_and_the_rest_is_the_networks():
    outside = RADIUS > 16.2
    image = np.where(outside, -2000, 40.0).astype(np.float32)[None, :, :, None].repeat(2, axis=3)
    pred = np.full_like(image, 7.0)
    data = {"image": MetaTensor(torch.from_numpy(image), affine=AFFINE), "pred": torch.from_numpy(pred)}
    out = KeepPaddingd("pred")(data)["pred"].numpy()[0]
    for z in range(2):
        np.testing.assert_array_equal(out[..., z], np.where(outside, -2000, 7.0))
    assert (data["pred"] == 7).all()


def test_a_scan_without_padding_is_left_alone():
    image = torch.from_numpy(np.random.default_rng(0).normal(-1000, 10, (1, 32, 32, 1)).astype(np.float32))
    pred = torch.zeros_like(image)
    assert torch.equal(KeepPaddingd("pred", image_key="scan")({"scan": image, "pred": pred})["pred"], pred)


def test_each_key_keeps_its_own_meta_data():
    """Regression: the result carried the meta data of the image."""
    image = MetaTensor(torch.full((1, 8, 8, 1), -2000.0), affine=AFFINE, meta={"filename_or_obj": "scan"})
    pred = MetaTensor(torch.zeros(1, 8, 8, 1), affine=OTHER, meta={"filename_or_obj": "pred"})
    out = KeepPaddingd("pred")({"image": image, "pred": pred})["pred"]
    assert torch.equal(out.affine, OTHER)
    assert out.meta["filename_or_obj"] == "pred"
    assert (out.as_tensor() == -2000).all()


def test_missing_keys_are_skipped_when_allowed():
    data = {"image": torch.zeros(1, 8, 8, 1)}
    assert list(KeepPaddingd("pred", allow_missing_keys=True)(data)) == ["image"]
