import numpy as np
import pytest
import torch
from ignite.engine import Engine
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ct_cncl.pipeline.metrics import psnr, quality_metrics, rmse, ssim


def slices(size=(40, 53), noise=60.0):
    rng = np.random.default_rng(1)
    reference = np.stack(
        [np.add.outer(np.linspace(-1000, 800, size[0]), 50 * np.sin(np.arange(size[1]) / k)) for k in (2, 5)]
    )
    reference[:, 10:20, 10:30] = 60
    image = reference + rng.normal(0, noise, reference.shape) * np.array([1, 3])[:, None, None]
    return image, reference


def tensor(array):
    return torch.from_numpy(array)[:, None].float()


@pytest.mark.parametrize("data_range", [4096.0, 400.0])
def test_equal_to_scikit_image(data_range):
    image, reference = slices()
    got = {
        "psnr": psnr(tensor(image), tensor(reference), data_range=data_range),
        "ssim": ssim(tensor(image), tensor(reference), data_range=data_range),
        "rmse": rmse(tensor(image), tensor(reference)),
    }
    for k in range(2):
        expected = {
            "psnr": peak_signal_noise_ratio(reference[k], image[k], data_range=data_range),
            "ssim": structural_similarity(
                reference[k],
                image[k],
                data_range=data_range,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            ),
            "rmse": np.sqrt(((image[k] - reference[k]) ** 2).mean()),
        }
        assert got["psnr"][k].item() == pytest.approx(expected["psnr"], abs=1e-4)
        assert got["ssim"][k].item() == pytest.approx(expected["ssim"], abs=1e-4)
        assert got["rmse"][k].item() == pytest.approx(expected["rmse"], rel=1e-5)


def test_known_error():
    reference = torch.zeros(1, 1, 16, 16)
    assert rmse(reference + 7, reference).item() == pytest.approx(7)
    assert psnr(reference + 40.96, reference, data_range=4096).item() == pytest.approx(40, abs=1e-4)
    assert psnr(reference, reference, data_range=4096).item() == float("inf")
    assert ssim(reference, reference, data_range=4096).item() == pytest.approx(1)


@pytest.mark.parametrize("function", [psnr, ssim])
def test_data_range_must_be_said(function):
    image = torch.zeros(1, 1, 16, 16)
    with pytest.raises(TypeError, match="data_range"):
        function(image, image)
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="data_range"):
            function(image, image, data_range=bad)


def test_shapes_must_agree():
    image = torch.zeros(1, 1, 16, 16)
    for other in (torch.zeros(1, 1, 16, 17), torch.zeros(2, 1, 16, 16)):
        with pytest.raises(ValueError, match="the same shape"):
            rmse(image, other)
    with pytest.raises(ValueError, match="the same shape"):
        rmse(image[0], image[0])


def test_quality_metrics_are_means_over_slices():
    """Over slices, not over batches: the last batch is smaller."""
    image, reference = slices()
    everything = {
        "label": reference,
        "image": image,
        "pred": reference + 4,
        "content": reference + 2,
        "denoised": (image + reference) / 2,
    }
    outputs = [{name: tensor(value[k]) for name, value in everything.items()} for k in ([0, 1], [1])]
    engine = Engine(lambda _engine, batch: batch)
    metrics = quality_metrics(4096)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run(outputs)

    names = [f"{m}{s}" for s in ("", "_input", "_content", "_denoised") for m in ("psnr", "ssim", "rmse")]
    assert list(metrics) == names
    assert engine.state.metrics["rmse"] == pytest.approx(4, rel=1e-5)
    assert engine.state.metrics["rmse_content"] == pytest.approx(2, rel=1e-5)
    rms = np.sqrt(((image - reference) ** 2).mean(axis=(1, 2)))
    assert engine.state.metrics["rmse_input"] == pytest.approx((rms[0] + 2 * rms[1]) / 3, rel=1e-5)
    assert engine.state.metrics["rmse_denoised"] == pytest.approx((rms[0] + 2 * rms[1]) / 6, rel=1e-5)
    levels = 20 * np.log10(4096 / rms)
    assert engine.state.metrics["psnr_input"] == pytest.approx((levels[0] + 2 * levels[1]) / 3, abs=1e-4)


def test_quality_metrics_refuse_no_range():
    with pytest.raises(ValueError, match="data_range"):
        quality_metrics(0)


def test_quality_metrics_are_over_the_range_that_is_given():
    image, reference = map(tensor, slices())
    output = {"label": reference} | dict.fromkeys(("image", "pred", "content", "denoised"), image)
    for data_range in (400, 4096):
        engine = Engine(lambda _engine, batch: batch)
        for name, metric in quality_metrics(data_range).items():
            metric.attach(engine, name)
        engine.run([output])
        for suffix in ("", "_input", "_content", "_denoised"):
            for name, figure in (("psnr", psnr), ("ssim", ssim)):
                expected = figure(image, reference, data_range=data_range).mean().item()
                assert engine.state.metrics[name + suffix] == pytest.approx(expected, rel=1e-5)


def test_quality_metrics_leave_out_slices_that_overflowed():
    """A network in trouble: the validation goes on, and says what the other slices have."""
    image, reference = map(tensor, slices())
    broken = image.clone()
    broken[0, 0, 3, 3] = torch.inf
    engine = Engine(lambda _engine, batch: batch)
    for name, metric in quality_metrics(4096).items():
        metric.attach(engine, name)
    engine.run([{"label": reference, "image": image, "pred": broken, "content": broken * torch.nan, "denoised": image}])
    assert engine.state.metrics["psnr"] == pytest.approx(psnr(image, reference, data_range=4096)[1].item(), rel=1e-6)
    assert engine.state.metrics["psnr_content"] == 0
