import pytest
import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks import UNet


def test_one_level_equals_the_plain_functional_computation():
    torch.manual_seed(0)
    network = UNet(width=4, depth=1, norm="none").double()
    image = torch.randn(2, 1, 8, 6, dtype=torch.float64)

    def conv(x, layer):
        return functional.conv2d(x, layer.weight, layer.bias, padding=1)

    down, bottom, last = network.down[0], network.bottom, network.up[0].convolutions
    skip = conv(conv(image, down[0]).relu(), down[3]).relu()
    low = conv(conv(functional.max_pool2d(skip, 2), bottom[0]).relu(), bottom[3]).relu()
    up = functional.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
    expected = conv(conv(torch.cat([skip, up], dim=1), last), network.head.convolution)

    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-12)


def test_paper_widths():
    convolutions = [m for m in UNet().modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        *[(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)],
        *[(512, 1024), (1024, 512)],
        *[(1024, 512), (512, 256), (512, 256), (256, 128), (256, 128), (128, 64), (128, 32), (32, 1)],
    ]


def test_output_may_be_negative():
    """The last pair has no ReLU: noise has both signs."""
    torch.manual_seed(0)
    output = UNet(width=4, depth=1)(torch.randn(1, 1, 16, 16))
    assert output.min() < 0 < output.max()


@pytest.mark.parametrize(
    ("norm", "kind", "count"),
    [("batch", nn.BatchNorm2d, 8), ("instance", nn.InstanceNorm2d, 8), ("none", nn.modules.batchnorm._NormBase, 0)],
)
def test_norm_stands_after_each_convolution_but_the_heads(norm, kind, count):
    network = UNet(width=4, depth=2, norm=norm)
    assert sum(isinstance(m, kind) for m in network.modules()) == count
    with_bias = sum(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))
    assert with_bias == (10 if norm == "none" else 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 0}, "width"), ({"width": 3}, "width"), ({"depth": 0}, "depth"), ({"norm": "group"}, "norm")],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(**options)


def test_zero_start_gives_zero_and_the_input_where_residual():
    image = torch.rand(2, 1, 32, 16, generator=torch.Generator().manual_seed(0))
    plain = UNet(width=4, depth=2, norm="none", zero_start=True)
    residual = UNet(width=4, depth=2, norm="none", zero_start=True, residual=True)
    assert torch.equal(plain(image), torch.zeros_like(image))
    assert torch.equal(residual(image), image)


def test_residual_adds_the_input_to_what_the_same_weights_predict():
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = UNet(width=4, depth=2, norm="none")
    residual = UNet(width=4, depth=2, norm="none", residual=True)
    residual.load_state_dict(plain.state_dict())
    assert torch.allclose(residual(image) - image, plain(image), atol=1e-6)
