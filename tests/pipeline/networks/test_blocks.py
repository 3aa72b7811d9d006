"""Blocks against plain functional computations, in float64, and against MONAI's."""

import pytest
import torch
from monai.networks.blocks import cablock
from torch.nn import functional

from ct_cncl.pipeline.networks.attention import MDTA
from ct_cncl.pipeline.networks.blocks import GDFN, NAFBlock, ResidualBlock, RestormerBlock


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(module):
    module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=number + 10)
    return module


def conv(x, layer):
    return functional.conv2d(x, layer.weight, layer.bias, padding=layer.padding, groups=layer.groups)


def layer_norm(x, norm):
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + norm.eps).sqrt()
    return norm.weight.view(-1, 1, 1) * scaled + norm.bias.view(-1, 1, 1)


def test_residual_block():
    block, x = randomised(ResidualBlock(3)), random(2, 3, 5, 4)
    torch.testing.assert_close(block(x), x + conv(conv(x, block.first).relu(), block.second), rtol=0, atol=1e-10)


def test_residual_block_with_norm_and_gate():
    block, x = randomised(ResidualBlock(3, norm="layer", activation="glu")), random(2, 3, 5, 4)
    wide = conv(layer_norm(x, block.norm), block.first)
    expected = x + conv(wide[:, :3] * wide[:, 3:], block.second)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


def test_naf_block():
    block, x = randomised(NAFBlock(3)), random(2, 3, 5, 4)
    norm, point, depth, _, attention, out = block.mixing
    wide = conv(conv(layer_norm(x, norm), point), depth)
    gated = wide[:, :3] * wide[:, 3:]
    scales = conv(gated.mean((2, 3), keepdim=True), attention.weights[1])
    between = x + block.beta * conv(gated * scales, out)
    norm, point, _, out = block.feed_forward
    wide = conv(layer_norm(between, norm), point)
    expected = between + block.gamma * conv(wide[:, :3] * wide[:, 3:], out)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-9)


def test_naf_block_starts_as_nothing():
    x = torch.rand(1, 4, 5, 6)
    assert torch.equal(NAFBlock(4)(x), x)


@pytest.mark.parametrize("channels", [4, 7])
def test_gdfn_equals_monais(channels):
    mine, x = randomised(GDFN(channels, expansion=2.66)), random(2, channels, 5, 4)
    theirs = cablock.FeedForward(2, channels, 2.66, False).double()
    weights = list(theirs.parameters())
    assert [w.shape for w in mine.parameters()] == [w.shape for w in weights]
    for own, other in zip(mine.parameters(), weights):
        other.data = own.data
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=1e-10)


def test_mdta_equals_monais_block(monkeypatch):
    """MONAI's needs einops, which is no dependency: its two rearrangements are given to it here."""

    def rearrange(x, pattern, *, head, **sides):
        if pattern.startswith("b (head c) h w"):
            return x.reshape(len(x), head, -1, x.shape[2] * x.shape[3])
        return x.reshape(len(x), -1, sides["h"], sides["w"])

    monkeypatch.setattr(cablock, "rearrange", rearrange)
    mine, theirs = randomised(MDTA(4, heads=2)), cablock.CABlock(2, 4, 2, False).double()
    for own, other in zip(mine.parameters(), theirs.parameters()):
        other.data = own.data.view_as(other)
    x = random(2, 4, 5, 6)
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=1e-10)


def test_restormer_block_is_two_prenorm_residual_steps():
    block, x = randomised(RestormerBlock(4, heads=2)), random(1, 4, 5, 6)
    between = x + block.attention[1](layer_norm(x, block.attention[0]))
    expected = between + block.feed_forward[1](layer_norm(between, block.feed_forward[0]))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)
