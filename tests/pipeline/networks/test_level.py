import copy

import numpy as np
import pytest
import torch
from scipy import ndimage

from ct_cncl.pipeline.networks import (
    CNCL,
    BlockDecoder,
    BlockUNet,
    ConvFusion,
    Exchange,
    FeatureFusion,
    InteractingCNCL,
    UNet,
)
from ct_cncl.pipeline.networks.level import inside_of_padding, keep_level, low_pass


def random_network(**options):
    """The fast network in small, random weights: no two pixels are changed alike, and the mean is."""
    torch.manual_seed(1)
    ways = {"width": 4, "decoder_blocks": (1, 1), "block": "residual", "norm": "layer", "unshuffle": 2}
    content = BlockUNet(encoder_blocks=(1, 1), middle_blocks=1, residual=True, **ways)
    network = InteractingCNCL(
        content=content,
        noise=BlockDecoder(**ways),
        fusion=lambda *channels, scale: FeatureFusion(*channels, scale=scale, gated=True),
        interaction=Exchange,
        levels="every",
        **options,
    )
    return network.eval()


def slice_with_padding(rows=150, columns=131):
    """0.2 to 0.4, and 0 outside of a circle as a scanner's field of view leaves it."""
    image = 0.2 + 0.2 * torch.rand(1, 1, rows, columns, generator=torch.Generator().manual_seed(2))
    y, x = torch.meshgrid(torch.arange(rows) - rows / 2, torch.arange(columns) - columns / 2, indexing="ij")
    return torch.where(y**2 + x**2 < 60**2, image, torch.zeros(()))


def test_low_pass_is_scipys():
    image = torch.rand(1, 2, 40, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (1.0, 3.0, 4.5):
        reference = ndimage.gaussian_filter(
            image.numpy(), (0, 0, sigma, sigma), mode="reflect", radius=int(np.ceil(3 * sigma))
        )
        np.testing.assert_allclose(low_pass(image, sigma), reference, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 3)])
def test_images_smaller_than_the_filter_keep_their_mean(size):
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    torch.testing.assert_close(low_pass(image, 4.0).mean(), image.mean())


@pytest.mark.parametrize(
    "image", [slice_with_padding(), 0.2 + 0.2 * torch.rand(2, 1, 64, 70)], ids=["padding", "whole"]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_random_weights_remove_no_mean(image, precision):
    network = random_network(level_sigma=3.0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        removed = image - network(image)
        without = image - random_network()(image)
    assert removed.dtype == torch.float32
    assert (4096 * removed.double().mean(dim=(-2, -1))).abs().max() < 1e-3  # HU
    assert (4096 * without.double().mean(dim=(-2, -1))).abs().min() > 0.2
    assert (4096 * removed).std() > 1


def test_what_is_removed_has_no_low_frequencies():
    generator = torch.Generator().manual_seed(3)
    image = 0.25 + 0.01 * torch.randn(1, 1, 256, 256, generator=generator)
    result = image - 0.01 * torch.randn(1, 1, 256, 256, generator=generator) - 0.02
    removed = image - keep_level(image, result, 4.0)
    power = torch.fft.fft2(removed[0, 0].double()).abs() ** 2
    before = torch.fft.fft2((image - result)[0, 0].double()).abs() ** 2
    radius = torch.hypot(torch.fft.fftfreq(256)[:, None], torch.fft.fftfreq(256)[None])
    for low, high in ((0, 0.01), (0.02, 0.03), (0.05, 0.06), (0.3, 0.5)):
        ring = (radius >= low) & (radius < high)
        passed = (1 - torch.exp(-2 * (np.pi * radius * 4.0) ** 2)) ** 2
        assert float(power[ring].sum() / before[ring].sum()) == pytest.approx(
            float((passed * before)[ring].sum() / before[ring].sum()), abs=0.02
        )


def test_a_level_that_moved_is_put_back_up_to_the_edge_of_the_padding():
    image = slice_with_padding()
    inside = image > 0
    kept = keep_level(image, image - 0.01, 3.0)
    torch.testing.assert_close(kept, image, atol=1e-6, rtol=0)
    assert torch.equal(keep_level(image, torch.rand_like(image), 3.0)[~inside], image[~inside])


def test_single_pixels_at_the_floor_are_air_and_areas_are_padding():
    image = torch.full((1, 1, 40, 40), 0.01)
    image[..., 3, 3] = 0.0
    image[..., 10:14, 10:30] = 0.0  # four rows: no square of five
    image[..., 20:25, 20:25] = 0.0
    image[..., 30:, :] = 0.0
    expected = torch.ones_like(image)
    expected[..., 20:25, 20:25] = 0.0
    expected[..., 30:, :] = 0.0
    assert torch.equal(inside_of_padding(image), expected)
    assert torch.equal(inside_of_padding(torch.zeros(1, 1, 9, 9)), torch.zeros(1, 1, 9, 9))
    assert torch.equal(keep_level(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), 3.0), torch.zeros(1, 1, 9, 9))


def test_the_stage_has_no_weights_and_is_off_unless_asked_for():
    plain, kept = random_network(), random_network(level_sigma=3.0)
    assert list(plain.state_dict()) == list(kept.state_dict())
    image = slice_with_padding()
    with torch.inference_mode():
        torch.testing.assert_close(kept(image), keep_level(image, plain(image), 3.0), rtol=0, atol=0)
    assert CNCL(content=UNet(width=4, depth=1), noise=UNet(width=4, depth=1), fusion=ConvFusion()).level_sigma == 0
    with pytest.raises(ValueError, match="level_sigma of 0"):
        random_network(level_sigma=-1.0)


def test_torchscript_computes_the_same_also_in_bf16(tmp_path):
    network = random_network(level_sigma=3.0)
    torch.jit.script(copy.deepcopy(network)).save(tmp_path / "network.ts")
    loaded = torch.jit.load(tmp_path / "network.ts")
    image = slice_with_padding()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert 4096 * float((image - loaded(image)).double().mean().abs()) < 1e-3


def test_gradients_pass():
    network = random_network(level_sigma=3.0)
    network(slice_with_padding()).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
