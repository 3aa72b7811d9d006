"""What holds for every predictor: start, residual, features, context, refusals; and each against its paper's size."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks import REDCNN, BlockDecoder, BlockUNet, DnCNN, Restormer, SRDenseNet, UNet
from ct_cncl.pipeline.networks.ends import Head, amplified

PREDICTORS = {
    "unet": (UNet, {"width": 4, "depth": 2}),
    "dncnn": (DnCNN, {"width": 4, "depth": 3}),
    "srdensenet": (SRDenseNet, {"width": 8, "blocks": 2, "layers": 4}),
    "naf": (BlockUNet, {"width": 4, "encoder_blocks": (1, 2), "decoder_blocks": (1, 1)}),
    "light": (
        BlockUNet,
        {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,), "block": "residual", "unshuffle": 2},
    ),
    "restormer": (Restormer, {"width": 4, "blocks": (1, 1, 1), "heads": (1, 2, 1), "refinement_blocks": 1}),
}


def predictor(name, **options):
    torch.manual_seed(0)
    kind, small = PREDICTORS[name]
    network = kind(**small | options).eval()
    for parameter in network.parameters() if "zero_start" not in options else ():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", PREDICTORS)
def test_zero_start_is_zero_and_the_input_where_residual(name):
    x = image(2, 1, 16, 24)
    assert torch.equal(predictor(name, zero_start=True)(x), torch.zeros_like(x))
    assert torch.equal(predictor(name, zero_start=True, residual=True)(x), x)


@pytest.mark.parametrize("name", PREDICTORS)
def test_residual_adds_the_centre_slice_to_what_the_same_weights_predict(name):
    x = image(1, 3, 16, 16)
    plain, residual = (predictor(name, in_channels=3, residual=residual) for residual in (False, True))
    torch.testing.assert_close(residual(x) - x[:, 1:2], plain(x), rtol=0, atol=1e-6)
    assert plain(x).std() > 1e-4


@pytest.mark.parametrize("name", PREDICTORS)
def test_context_slices_are_used(name):
    x = image(1, 3, 16, 16).requires_grad_()
    predictor(name, in_channels=3)(x).square().sum().backward()
    assert (x.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", PREDICTORS)
def test_features_have_the_announced_channels_and_scales_and_lead_to_the_same_image(name):
    network, x = predictor(name, residual=True), image(2, 1, 16, 32)
    features, skips = network.encode(x)
    shapes = []
    for up in network.up:
        features = up(features, skips.pop())
        shapes.append((features.shape[1], 16 // features.shape[2], 32 // features.shape[3]))
    assert skips == []
    expected = [(channels, scale, scale) for channels, scale in zip(network.channels, network.scales)]
    assert (shapes or [(features.shape[1], 1, 1)]) == expected
    torch.testing.assert_close(network.head(features, x), network(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "naf", "light", "restormer"])
def test_multiple_is_what_the_sides_need(name):
    network = predictor(name)
    side = network.multiple
    assert network(image(1, 1, side, 3 * side)).shape == (1, 1, side, 3 * side)
    with pytest.raises(RuntimeError):
        network(image(1, 1, side + 1, side))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dncnn", {"depth": 1}, "depth of at least 2"),
        ("srdensenet", {"layers": 3}, "divisible by layers"),
        ("srdensenet", {"blocks": 0}, "blocks and layers"),
        ("naf", {"decoder_blocks": (1,)}, "equally many encoder and decoder"),
        ("naf", {"encoder_blocks": (), "decoder_blocks": ()}, "at least one level"),
        ("naf", {"gain": 0}, "gain"),
        ("naf", {"block": "dense"}, "'naf' or 'residual'"),
        ("light", {"norm": "group"}, "Expected norm"),
        ("restormer", {"heads": (1, 1)}, "blocks and heads"),
        ("restormer", {"heads": (1, 1, 5)}, "heads that divide"),
        ("restormer", {"width": 5}, "even width"),
        ("unet", {"activation": "tanh"}, "Expected activation"),
        ("unet", {"attention": "se"}, "Expected channel attention"),
    ],
)
def test_refused_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        predictor(name, **options)


def test_dncnn_equals_a_chain_of_convolutions():
    network = DnCNN(width=3, depth=3, norm="none").double()
    x = image(1, 1, 6, 7).double()
    first, second = network.layers[0], network.layers[2]
    middle = functional.conv2d(x, first.weight, first.bias, padding=1).relu()
    middle = functional.conv2d(middle, second.weight, second.bias, padding=1).relu()
    head = network.head.convolution
    torch.testing.assert_close(network(x), functional.conv2d(middle, head.weight, head.bias, padding=1))


def test_dncnn_has_the_papers_layers():
    """Zhang et al.: 17 convolutions of 64 channels, batch norm in all but the first and the last; 0.56 million parameters."""
    network = DnCNN()
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 17
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 15
    assert parameters(network) == 10 * 64 + 15 * (9 * 64 * 64 + 2 * 64) + 9 * 64 + 1


def test_dense_block_sees_all_before_it():
    network = SRDenseNet(width=6, blocks=1, layers=3).double()
    block, x = network.blocks[0], torch.rand(1, 6, 4, 5, dtype=torch.float64)

    def step(layer, x):
        return functional.conv2d(x, layer[0].weight, layer[0].bias, padding=1).relu()

    first = step(block.layers[0], x)
    second = step(block.layers[1], first)
    third = step(block.layers[2], torch.cat([first, second], dim=1))
    torch.testing.assert_close(block(x), torch.cat([first, second, third], dim=1))


def test_srdensenet_has_the_papers_channels():
    """Tong et al.: 8 blocks of 8 layers, growth 16, bottleneck to 256."""
    network = SRDenseNet()
    growth = {layer[0].out_channels for block in network.blocks for layer in block.layers}
    bottleneck = network.bottleneck[0]
    assert growth == {16}
    assert (len(network.blocks), len(network.blocks[0].layers)) == (8, 8)
    assert (bottleneck.in_channels, bottleneck.out_channels) == (9 * 128, 256)


def test_nafnet_has_the_papers_size():
    """Chen et al. report 17.1 million parameters for width 32, encoder 1-1-1-28 on three channels."""
    options = {"width": 32, "encoder_blocks": (1, 1, 1, 28), "decoder_blocks": (1, 1, 1, 1)}
    with torch.device("meta"):
        assert parameters(BlockUNet(**options)) / 1e6 == pytest.approx(17.1, abs=0.06)


def test_restormer_has_the_papers_size():
    """Zamir et al. report 26.1 million parameters."""
    options = {"width": 48, "blocks": (4, 6, 6, 8), "heads": (1, 2, 4, 8), "refinement_blocks": 4}
    with torch.device("meta"):
        assert parameters(Restormer(**options)) / 1e6 == pytest.approx(26.1, abs=0.1)


def test_pixel_shuffled_head_puts_each_feature_on_its_block():
    head = Head(1, scale=2, gain=4.0).double()
    nn.init.zeros_(head.convolution.weight)
    with torch.no_grad():
        head.convolution.weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        head.convolution.bias.zero_()
    features = torch.arange(1.0, 7.0, dtype=torch.float64).view(1, 1, 2, 3)
    output = head(features, torch.zeros(1, 1, 4, 6, dtype=torch.float64))
    expected = torch.kron(features[0, 0], torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)) / 4
    torch.testing.assert_close(output[0, 0], expected)


def test_amplified_is_zero_at_water():
    from ct_cncl.transforms.common.hu import to_network

    torch.testing.assert_close(
        amplified(to_network(torch.tensor([0.0, 256.0, -1024.0])), 16.0), torch.tensor([0.0, 1.0, -4.0])
    )


def test_decoder_is_that_of_the_whole_network():
    options = {"width": 4, "decoder_blocks": (1, 1), "block": "residual", "unshuffle": 2}
    whole = BlockUNet(encoder_blocks=(1, 1), **options)
    part = BlockDecoder(**options)
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith(("up.", "head."))})
    x = image(1, 1, 16, 24)
    features, skips = whole.encode(x)
    assert torch.equal(part.decode(features, skips, x), whole(x))
    assert (part.multiple, part.channels, part.scales) == (whole.multiple, whole.channels, whole.scales)


def test_redcnn_equals_the_papers_chain():
    network = REDCNN(width=3).double()
    x = image(1, 1, 24, 25).double()
    e = [lambda x, c=c: functional.conv2d(x, c.weight, c.bias).relu() for c in network.encoder]
    d = [lambda x, c=c: functional.conv_transpose2d(x, c.weight, c.bias) for c in [*network.decoder, network.last]]
    second = e[1](e[0](x))
    fourth = e[3](e[2](second))
    up = d[1]((d[0](e[4](fourth)) + fourth).relu()).relu()
    up = d[3]((d[2](up) + second).relu()).relu()
    torch.testing.assert_close(network(x), d[4](up) + x, rtol=0, atol=1e-12)


def test_redcnn_has_the_papers_size():
    with torch.device("meta"):
        assert parameters(REDCNN()) == 2496 + 8 * 230496 + 2401


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (21, 20), (33, 47)])
def test_redcnn_takes_any_size_and_may_start_as_the_input(size):
    x = image(1, 3, *size)
    assert torch.equal(REDCNN(width=2, in_channels=3, zero_start=True)(x), x[:, 1:2])
    assert REDCNN(width=2, in_channels=3)(x).shape == (1, 1, *size)
