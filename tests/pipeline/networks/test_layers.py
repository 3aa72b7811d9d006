"""Normalisation, activation and channel attention against loops over single numbers, in float64."""

import itertools
import math

import pytest
import torch
from torch import nn

from ct_cncl.pipeline.networks.activation import SimpleGate, activation_layer, widening
from ct_cncl.pipeline.networks.channel_attention import (
    ChannelAttention,
    SimpleChannelAttention,
    channel_attention_layer,
)
from ct_cncl.pipeline.networks.normalisation import LayerNorm2d, norm_layer


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(module):
    module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=number + 10)
    return module


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_layer_norm_equals_loops(eps):
    norm, x = randomised(LayerNorm2d(4, eps=eps)), random(2, 4, 3, 5)
    expected = torch.zeros_like(x)
    for b, i, j in itertools.product(range(2), range(3), range(5)):
        pixel = x[b, :, i, j].tolist()
        mean = sum(pixel) / 4
        deviation = math.sqrt(sum((v - mean) ** 2 for v in pixel) / 4 + eps)
        for c, value in enumerate(pixel):
            expected[b, c, i, j] = float(norm.weight[c]) * (value - mean) / deviation + float(norm.bias[c])
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)


def test_layer_norm_leaves_channels_last_in_memory():
    x = torch.rand(2, 4, 3, 5)
    assert LayerNorm2d(4)(x).is_contiguous(memory_format=torch.channels_last)


def test_layer_norm_of_a_pixel_depends_on_that_pixel_alone():
    norm, x = LayerNorm2d(4), torch.rand(2, 4, 3, 5)
    torch.testing.assert_close(norm(x)[1:, :, 1:2, 2:3], norm(x[1:, :, 1:2, 2:3]))


def test_simple_gate_equals_loops():
    x = random(2, 6, 2, 3)
    expected = torch.empty(2, 3, 2, 3, dtype=x.dtype)
    for b, c, i, j in itertools.product(range(2), range(3), range(2), range(3)):
        expected[b, c, i, j] = float(x[b, c, i, j]) * float(x[b, c + 3, i, j])
    torch.testing.assert_close(SimpleGate()(x), expected, rtol=0, atol=0)


def naive_means(x):
    return [[sum(x[b, c].flatten().tolist()) / x[b, c].numel() for c in range(x.shape[1])] for b in range(len(x))]


def naive_point(convolution, vector):
    rows = zip(convolution.weight[:, :, 0, 0].tolist(), convolution.bias.tolist())
    return [sum(w * v for w, v in zip(row, vector)) + bias for row, bias in rows]


def test_channel_attention_equals_loops():
    layer, x = randomised(ChannelAttention(6)), random(2, 6, 3, 2)
    expected = torch.empty_like(x)
    for b, means in enumerate(naive_means(x)):
        hidden = [max(v, 0.0) for v in naive_point(layer.weights[1], means)]
        for c, logit in enumerate(naive_point(layer.weights[3], hidden)):
            expected[b, c] = x[b, c] / (1 + math.exp(-logit))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_simple_channel_attention_equals_loops():
    layer, x = randomised(SimpleChannelAttention(6)), random(2, 6, 3, 2)
    expected = torch.empty_like(x)
    for b, means in enumerate(naive_means(x)):
        for c, weight in enumerate(naive_point(layer.weights[1], means)):
            expected[b, c] = weight * x[b, c]
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "hidden"), [(4, 4), (64, 4), (128, 8), (512, 32)])
def test_reduction_of_channel_attention(channels, hidden):
    assert ChannelAttention(channels).weights[1].out_channels == hidden


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (norm_layer("batch", 4), nn.BatchNorm2d),
        (norm_layer("layer", 4), LayerNorm2d),
        (norm_layer("instance", 4), nn.InstanceNorm2d),
        (norm_layer("none", 4), nn.Identity),
        (activation_layer("relu"), nn.ReLU),
        (activation_layer("gelu"), nn.GELU),
        (activation_layer("glu"), SimpleGate),
        (channel_attention_layer("ca", 4), ChannelAttention),
        (channel_attention_layer("sca", 4), SimpleChannelAttention),
        (channel_attention_layer("none", 4), nn.Identity),
    ],
)
def test_layers_by_name(layer, kind):
    assert type(layer) is kind


def test_unknown_names_are_refused():
    for make in (
        lambda: norm_layer("group", 4),
        lambda: activation_layer("tanh"),
        lambda: channel_attention_layer("x", 4),
    ):
        with pytest.raises(ValueError, match=r"Expected .* but got"):
            make()
    assert [widening(name) for name in ("relu", "gelu", "glu")] == [1, 1, 2]
