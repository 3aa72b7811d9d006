"""Masks, windows, VIF."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import visual_information_fidelity

from ct_cncl.pipeline.metrics import SliceMetric, mae, psnr, rmse, ssim, vif
from ct_cncl.transforms.common.hu import WINDOWS, Window


def pair(size=(72, 61), noise=40.0):
    """Two slices with air, soft tissue, bone and structure, and the same with noise of two levels."""
    rng = np.random.default_rng(3)
    reference = np.full((2, 1, *size), -1000.0)
    reference[..., 8:-8, 8:-8] = 40 + 60 * rng.random((2, 1, size[0] - 16, size[1] - 16)).cumsum(-1).cumsum(-2) / 500
    reference[..., 20:30, 20:40] = 900.0
    image = reference + noise * rng.normal(size=reference.shape) * np.array([1.0, 2.5])[:, None, None, None]
    return torch.from_numpy(image).float(), torch.from_numpy(reference).float()


def through(hu, window):
    """Grey levels as a viewer shows them, in HU from 0 on: written without the package."""
    return np.clip(hu.numpy().astype(np.float64) - (window[0] - window[1] / 2), 0, window[1])


@pytest.mark.parametrize("name", ["chest", "abdomen", "head", "bone", "full"])
def test_windowed_psnr_and_ssim_are_scikit_image_s(name):
    window = {
        "chest": (-600, 1500), "abdomen": (50, 400), "head": (40, 80), "bone": (400, 1800), "full": (1024, 4096)
    }[name]  # fmt: skip
    image, reference = pair()
    shown, wanted = through(image, window), through(reference, window)
    for k in range(2):
        expected = peak_signal_noise_ratio(wanted[k, 0], shown[k, 0], data_range=window[1])
        assert psnr(image, reference, data_range=WINDOWS[name])[k].item() == pytest.approx(expected, abs=1e-4)
        options = {"data_range": window[1], "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected = structural_similarity(wanted[k, 0], shown[k, 0], **options)
        assert ssim(image, reference, data_range=WINDOWS[name])[k].item() == pytest.approx(expected, abs=2e-5)


def test_masked_figures_are_those_of_the_mask_s_pixels():
    image, reference = pair()
    mask = torch.zeros(image.shape, dtype=torch.bool)
    mask[0, :, 10:40, 12:50], mask[1, :, 30:70, 3:9] = True, True
    error = [(image - reference)[k][mask[k]].double().numpy() for k in range(2)]
    for k in range(2):
        root = np.sqrt((error[k] ** 2).mean())
        assert rmse(image, reference, mask=mask)[k].item() == pytest.approx(root, rel=1e-6)
        assert mae(image, reference, mask=mask)[k].item() == pytest.approx(np.abs(error[k]).mean(), rel=1e-6)
        found = psnr(image, reference, data_range=4096.0, mask=mask)[k].item()
        assert found == pytest.approx(20 * np.log10(4096 / root), abs=1e-5)


def test_masked_ssim_is_the_mean_of_scikit_image_s_map():
    image, reference = pair()
    _, full = structural_similarity(
        reference[0, 0].numpy(), image[0, 0].numpy(), data_range=4096, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    mask = torch.zeros(image.shape, dtype=torch.bool)
    mask[..., 9:33, 14:44] = True
    mask[..., :3, :3] = True  # where no window fits
    found = ssim(image, reference, data_range=4096.0, mask=mask)[0].item()
    assert found == pytest.approx(full[9:33, 14:44].mean(), abs=2e-5)


def test_what_is_outside_the_mask_does_not_matter():
    image, reference = pair()
    mask = torch.zeros(image.shape, dtype=torch.bool)
    mask[..., 10:20, 10:20] = True
    before = rmse(image, reference, mask=mask)
    image[..., 40:, :] += 500
    torch.testing.assert_close(rmse(image, reference, mask=mask), before, rtol=0, atol=0)


@pytest.mark.parametrize("data_range", [400.0, 4096.0, Window(50, 400)])
def test_vif_is_torchmetrics(data_range):
    image, reference = pair()
    length = data_range.width if isinstance(data_range, Window) else data_range
    if isinstance(data_range, Window):
        shown, wanted = (torch.from_numpy(through(each, data_range)).float() for each in (image, reference))
    else:
        shown, wanted = image, reference
    for k in range(2):
        expected = visual_information_fidelity(shown[[k]] * 255 / length, wanted[[k]] * 255 / length, sigma_n_sq=2.0)
        assert vif(image, reference, data_range=data_range)[k].item() == pytest.approx(expected.item(), rel=1e-3)


def test_vif_falls_with_noise_and_blur_and_rises_above_one_with_contrast():
    image, reference = pair(noise=10.0)
    worse, _ = pair(noise=40.0)
    window = WINDOWS["chest"]
    assert (vif(worse, reference, data_range=window) < vif(image, reference, data_range=window)).all()
    assert (vif(image, reference, data_range=window) < 1).all()
    centre = reference.mean()
    assert (vif(centre + 1.2 * (reference - centre), reference, data_range=4096.0) > 1).all()


@pytest.mark.parametrize("figure", [psnr, ssim, vif])
def test_a_range_is_mandatory_and_positive(figure):
    image, reference = pair()
    with pytest.raises(TypeError, match="data_range"):
        figure(image, reference)
    for bad in (0.0, -1.0, float("nan"), Window(50, 0)):
        with pytest.raises(ValueError, match="positive data_range"):
            figure(image, reference, data_range=bad)


def test_nan_empty_masks_and_constant_truths_are_refused():
    image, reference = pair()
    empty = torch.zeros(image.shape, dtype=torch.bool)
    empty[0] = True
    for figure in (rmse, mae):
        with pytest.raises(ValueError, match="empty"):
            figure(image, reference, mask=empty)
        with pytest.raises(ValueError, match="bool mask"):
            figure(image, reference, mask=empty.float())
    with pytest.raises(ValueError, match="empty"):
        ssim(image, reference, data_range=4096.0, mask=empty)
    broken = image.clone()
    broken[1, 0, 5, 5] = torch.nan
    for figure in (psnr, ssim, vif):
        with pytest.raises(ValueError, match="finite"):
            figure(broken, reference, data_range=4096.0)
    with pytest.raises(ValueError, match="constant"):
        vif(image, torch.full_like(reference, -2000.0), data_range=WINDOWS["abdomen"])
    with pytest.raises(ValueError, match="at least 11"):
        ssim(image[..., :10], reference[..., :10], data_range=1.0)


def test_monai_metric_has_a_value_a_slice():
    image, reference = pair()
    metric = SliceMetric(partial(vif, data_range=WINDOWS["chest"]))
    torch.testing.assert_close(metric(image, reference)[:, 0], vif(image, reference, data_range=WINDOWS["chest"]))
