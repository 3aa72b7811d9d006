import numpy as np
import torch
from monai.data import MetaTensor

from ct_cncl.transforms.patches.padding import KeepPaddingd, PaddingMask, PaddingMaskd

AFFINE = torch.diag(torch.tensor([-0.5, 0.5, 2.0, 1.0], dtype=torch.float64))
OTHER = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
RADIUS = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5, indexing="ij"))


def test_padding_is_marked_in_one_slice_and_in_a_batch():
    hu = torch.from_numpy(np.where(RADIUS > 16.2, -2000, 40.0)).float()[None]
    expected = torch.from_numpy(RADIUS > 16.2)[None]
    assert torch.equal(PaddingMask()(hu), expected)
    assert torch.equal(PaddingMaskd("label", mask_key="where")({"label": hu})["where"], expected)
    batch = PaddingMaskd("label")({"label": torch.stack([hu, torch.full_like(hu, 40.0)])})["padding"]
    assert torch.equal(batch[0], expected)
    assert not batch[1].any()


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
