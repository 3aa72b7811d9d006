import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ct_cncl.transforms.physics import FanBeam, ParallelBeam, back_project, fbp, filter_sinogram, project, torch_backend

SHAPE, PIXEL = (72, 60), (4.0, 5.0)
BEAMS = {
    "parallel": ParallelBeam.for_image(SHAPE, PIXEL, views=90),
    "curved": FanBeam(120, 150, 4.0, 595.0, 1085.6),
    "flat": FanBeam(120, 150, 4.0, 595.0, 1085.6, "flat"),
}
EVERY_BEAM = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())
DEVICES = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
        ),
    ],
)


def random_images(count=3):
    return np.random.default_rng(0).random((count, *SHAPE)).astype(np.float32) * 0.02


@DEVICES
@EVERY_BEAM
def test_both_backends_agree_to_1e_4_of_the_maximum(beam, device):
    images = random_images()
    batch = torch.from_numpy(images).to(device)[:, None]
    sinograms = project(batch, PIXEL, beam)
    assert sinograms.shape == (3, 1, beam.views, beam.channels)
    for image, got in zip(images, sinograms[:, 0].cpu().numpy(), strict=True):
        expected = project(image, PIXEL, beam)
        assert np.abs(got - expected).max() < 1e-4 * expected.max()
    expected = fbp(sinograms[1, 0].cpu().numpy(), beam, SHAPE, PIXEL, apodisation="cosine", cutoff=0.9)
    got = fbp(sinograms, beam, SHAPE, PIXEL, apodisation="cosine", cutoff=0.9)[1, 0].cpu().numpy()
    assert np.abs(got - expected).max() < 1e-4 * expected.max()
    filtered = filter_sinogram(sinograms[2, 0].cpu().numpy(), beam)
    np.testing.assert_allclose(filter_sinogram(sinograms, beam)[2, 0].cpu(), filtered, atol=1e-4 * filtered.max())


@EVERY_BEAM
def test_gradient_is_the_exact_adjoint(beam):
    """<A x, y> = <x, A' y> with A' from autograd; linear, so that the gradient does not depend on x."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((2, *SHAPE), generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.rand((2, beam.views, beam.channels), generator=generator, dtype=torch.float64)
    inner = (project(x, PIXEL, beam) * y).sum()
    (adjoint,) = torch.autograd.grad(inner, x)
    assert float((adjoint * x).sum().detach()) == pytest.approx(float(inner.detach()), rel=1e-10)
    z = torch.rand((2, *SHAPE), generator=generator, dtype=torch.float64)
    assert float((project(z, PIXEL, beam) * y).sum()) == pytest.approx(float((adjoint * z).sum()), rel=1e-10)


def test_adjoint_in_float32_to_1e_5_and_of_the_back_projection():
    beam = BEAMS["curved"]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SHAPE, generator=generator, requires_grad=True)
    y = torch.rand((beam.views, beam.channels), generator=generator)
    inner = (project(x, PIXEL, beam) * y).sum()
    (adjoint,) = torch.autograd.grad(inner, x)
    z = torch.rand(SHAPE, generator=generator)
    assert float((project(z, PIXEL, beam) * y).sum()) == pytest.approx(float((adjoint * z).sum()), rel=1e-5)
    s = y.clone().requires_grad_()
    (back,) = torch.autograd.grad((back_project(s, beam, SHAPE, PIXEL) * z).sum(), s)
    assert float((back * y).sum()) == pytest.approx(float((back_project(y, beam, SHAPE, PIXEL) * z).sum()), rel=1e-5)


@pytest.mark.parametrize("samples", [1, 60_000])
def test_parts_do_not_change_the_result_nor_the_gradient(monkeypatch, samples):
    beam = BEAMS["curved"]
    x = torch.from_numpy(random_images(2)).double().requires_grad_()

    def both():
        sinogram = project(x, PIXEL, beam)
        image = fbp(sinogram, beam, SHAPE, PIXEL)
        return image.detach(), torch.autograd.grad((image**2).sum(), x)[0]

    whole = both()
    monkeypatch.setattr(torch_backend, "SAMPLES_AT_ONCE", samples)
    for part, expected in zip(both(), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-12)


def test_a_single_pixel_a_meta_tensor_and_half_precision():
    beam = ParallelBeam(views=1, channels=3, channel_spacing_mm=1.0)
    torch.testing.assert_close(project(torch.ones(1, 1), (1, 1), beam), torch.tensor([[0.0, 1.0, 0.0]]))
    image = MetaTensor(torch.from_numpy(random_images(1)), affine=torch.eye(4))
    result = project(image, PIXEL, BEAMS["parallel"])
    assert type(result) is torch.Tensor
    assert project(image.to(torch.bfloat16), PIXEL, BEAMS["parallel"]).dtype == torch.float32


def test_integers_and_vectors_are_refused():
    with pytest.raises(ValueError, match="floating point but got torch.int16"):
        project(torch.zeros(SHAPE, dtype=torch.int16), PIXEL, BEAMS["parallel"])
    with pytest.raises(ValueError, match="floating point but got"):
        project(torch.zeros(5), PIXEL, BEAMS["parallel"])
    with pytest.raises(ValueError, match="Expected a sinogram"):
        back_project(torch.zeros(2, 4, 9), ParallelBeam(4, 8, 1.0), SHAPE, PIXEL)
