"""Both ends of a predictor under mixed precision: what carries the level, 1064 HU beside 1 HU, is never rounded to bfloat16."""

import pytest
import torch
from torch import nn

from ct_cncl.pipeline import networks
from ct_cncl.pipeline.networks import ConvFusion
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d
from ct_cncl.pipeline.networks.feature_fusion import EmbeddedFusion

PREDICTORS = {
    "UNet": {"width": 4, "depth": 1, "norm": "none"},
    "BlockUNet": {"width": 4, "encoder_blocks": [1], "decoder_blocks": [1], "block": "residual", "unshuffle": 2},
    "DnCNN": {"width": 4, "depth": 3, "norm": "none"},
    "SRDenseNet": {"width": 4, "blocks": 1, "layers": 2},
    "Restormer": {"width": 4, "blocks": [1, 1], "heads": [1, 1], "refinement_blocks": 1},
    "REDCNN": {"width": 4},
}


def predictor(name, **options):
    torch.manual_seed(0)
    return getattr(networks, name)(**PREDICTORS[name], **options).eval()


def tissue(side=32):
    """40 HU with noise of 1 HU, which bfloat16 cannot say."""
    hu = 40 + torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    image = (hu + 1024) / 4096
    assert (image.bfloat16().float() - image).abs().max() * 4096 > 1
    return image


def in_bf16(module, *inputs):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return module(*inputs)


@pytest.mark.parametrize("name", PREDICTORS)
def test_the_image_is_convolved_in_float32(name):
    """The first convolution's output is the one without mixed precision; the next ones round."""
    network = predictor(name)
    outputs = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.inference_mode():
        network(tissue())
    expected, count = outputs[0], len(outputs)
    in_bf16(network, tissue())
    assert torch.equal(outputs[count], expected)
    assert any(output.dtype == torch.bfloat16 for output in outputs[count:])


@pytest.mark.parametrize("name", PREDICTORS)
def test_what_is_added_to_the_image_leaves_its_bits(name):
    options = {} if name == "REDCNN" else {"residual": True}
    image = tissue()
    assert torch.equal(in_bf16(predictor(name, zero_start=True, **options), image), image)


def test_an_image_that_is_not_added_is_not_rounded():
    head = Head(3, zero_start=True)
    nn.init.constant_(head.convolution.bias, 1065.3 / 4096)
    output = in_bf16(head, torch.ones(1, 3, 8, 8, dtype=torch.bfloat16), tissue(8))
    assert output.dtype == torch.float32
    assert (output * 4096 - 1065.3).abs().max() < 1e-3


def test_a_fusion_of_images_averages_without_rounding():
    content, denoised = tissue(), tissue().flip(2)
    assert torch.allclose(in_bf16(ConvFusion(), content, denoised), (content + denoised) / 2, rtol=0, atol=1e-6)


def test_a_fusion_that_embeds_the_images_does_not_round_them():
    """What it embeds is 16 times (image - 1064 / 4096): rounded to bfloat16 first, steps of 8 HU would be left of it."""
    torch.manual_seed(0)
    fusion = EmbeddedFusion(width=4)
    content, denoised = tissue(), tissue().flip(2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        seen = fusion.embedded(content, denoised)
    exact = fusion.embedded(content, denoised)
    assert (seen - exact).abs().max() < 0.01 * exact.abs().max()


def test_what_is_added_to_features_does_not_spread_float32():
    """The first feature map of a network of skip connections is small: else all levels would be computed twice as slowly."""
    for name in ("BlockUNet", "Restormer"):
        with torch.autocast("cpu", torch.bfloat16):
            features, skips = predictor(name).encode(tissue())
        assert {each.dtype for each in (features, *skips)} == {torch.bfloat16}, name


def test_work_is_counted_on_meta_and_scripts_are_the_same():
    """torch.autocast refuses the meta device, on which `ct-cncl models` counts multiplications."""
    layer = ImageConv2d(1, 2, 3, padding=1)
    with torch.inference_mode():
        assert torch.equal(torch.jit.script(layer)(tissue()), layer(tissue()))
    assert layer.to("meta")(torch.empty(1, 1, 8, 8, device="meta")).shape == (1, 2, 8, 8)
