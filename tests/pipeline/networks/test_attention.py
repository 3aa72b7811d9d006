"""Channel attention between feature maps against loops over single numbers, in float64."""

import itertools
import math

import pytest
import torch

from ct_cncl.pipeline.networks.attention import MDTA, CrossAttention, channel_scores, complement, mix_channels

SHAPE = (3, 5)
"""Rows and columns of the feature maps here."""


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(module, seed=1):
    """Every parameter drawn from N(0, 1), so that none sits at a start that hides it."""
    module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=100 * seed + number)
    return module


def naive_projection(layers, x):
    """A 1x1 convolution and a depthwise 3x3 one, padded with zeros."""
    point, depth = layers[0].weight.detach(), layers[1].weight.detach()
    batch, _, height, width = x.shape
    out = torch.zeros(batch, len(depth), height, width, dtype=x.dtype)
    for b, c, i, j in itertools.product(range(batch), range(len(depth)), range(height), range(width)):
        for di, dj in itertools.product((-1, 0, 1), repeat=2):
            if 0 <= i + di < height and 0 <= j + dj < width:
                mixed = sum(float(w) * float(v) for w, v in zip(point[c, :, 0, 0], x[b, :, i + di, j + dj]))
                out[b, c, i, j] += float(depth[c, 0, di + 1, dj + 1]) * mixed
    return out


def naive_maps(query, key, temperature):
    """softmax over key channels of temperature * cosine, as maps[b][head][c][k]."""
    heads = len(temperature)
    maps = torch.zeros(len(query), heads, query.shape[1] // heads, key.shape[1] // heads, dtype=query.dtype)
    for b, h, c in itertools.product(range(len(query)), range(heads), range(maps.shape[2])):
        q = query[b, h * maps.shape[2] + c].flatten().tolist()
        weights = []
        for k in range(maps.shape[3]):
            v = key[b, h * maps.shape[3] + k].flatten().tolist()
            dot = sum(x * y for x, y in zip(q, v))
            weights.append(math.exp(temperature[h].item() * dot / math.hypot(*q) / math.hypot(*v)))
        maps[b, h, c] = torch.tensor(weights, dtype=query.dtype) / sum(weights)
    return maps


def naive_mix(maps, value):
    batch, heads, out_channels, channels = maps.shape
    mixed = torch.zeros(batch, heads * out_channels, *value.shape[2:], dtype=value.dtype)
    for b, h, c, k in itertools.product(range(batch), range(heads), range(out_channels), range(channels)):
        mixed[b, h * out_channels + c] += maps[b, h, c, k] * value[b, h * channels + k]
    return mixed


def naive_out(layer, x):
    return torch.stack([(layer.weight[c].view(-1, 1, 1) * x).sum(1) for c in range(len(layer.weight))], dim=1)


@pytest.mark.parametrize("heads", [1, 2])
def test_mdta_equals_loops(heads):
    module, x = randomised(MDTA(4, heads=heads)), random(2, 4, *SHAPE)
    query, key, value = naive_projection(module.qkv, x).split(4, dim=1)
    expected = naive_out(module.out, naive_mix(naive_maps(query, key, module.temperature), value))
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("content_channels", "noise_channels", "heads"), [(4, 4, 1), (4, 6, 2), (2, 3, 1)])
def test_cross_attention_equals_loops(content_channels, noise_channels, heads):
    module = randomised(CrossAttention(content_channels, noise_channels, heads=heads))
    content, noise = random(2, content_channels, *SHAPE), random(2, noise_channels, *SHAPE, seed=5)
    cq, ck, cv = naive_projection(module.content_projection, content).split(content_channels, dim=1)
    nq, nk, nv = naive_projection(module.noise_projection, noise).split(noise_channels, dim=1)
    temperature = module.temperature
    expected = (
        naive_out(module.content_out, naive_mix(naive_maps(cq, nk, temperature[:heads]), nv)),
        naive_out(module.noise_out, naive_mix(naive_maps(nq, ck, temperature[heads:]), cv)),
    )
    for got, want in zip(module(content, noise), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("content_channels", "noise_channels", "heads"), [(4, 4, 1), (4, 6, 2), (2, 3, 1)])
def test_complementary_attention_equals_loops(content_channels, noise_channels, heads):
    module = randomised(CrossAttention(content_channels, noise_channels, heads=heads, complementary=True))
    content, noise = random(2, content_channels, *SHAPE), random(2, noise_channels, *SHAPE, seed=5)
    query, cv = naive_projection(module.content_projection, content).split(content_channels, dim=1)
    key, nv = naive_projection(module.noise_projection, noise).split(noise_channels, dim=1)
    maps = naive_maps(query, key, module.temperature)
    opposite = torch.zeros_like(maps.transpose(-2, -1))
    for b, h, c, k in itertools.product(*map(range, maps.shape)):
        opposite[b, h, k, c] = (1 - maps[b, h, c, k]) / (maps.shape[2] - maps[b, h, :, k].sum())
    expected = (
        naive_out(module.content_out, naive_mix(maps, nv)),
        naive_out(module.noise_out, naive_mix(opposite, cv)),
    )
    for got, want in zip(module(content, noise), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_scores_are_cosines_and_one_channel_finds_itself():
    x = random(1, 3, *SHAPE)
    scores = channel_scores(x, torch.cat([-2 * x[:, 1:2], 7 * x[:, :1], x[:, 2:]], dim=1), torch.full((1, 1, 1), 50.0))
    assert scores[0, 0, 0, 1].item() == pytest.approx(50)
    assert scores[0, 0, 1, 0].item() == pytest.approx(-50)
    mixed = mix_channels((20 * scores).softmax(-1), x)
    torch.testing.assert_close(mixed[:, 0], x[:, 1], rtol=0, atol=1e-6)


def test_complement_of_a_softmax_sums_to_one_and_turns_its_order_round():
    attention = random(2, 1, 5, 7).softmax(-1)
    opposite = complement(attention)
    torch.testing.assert_close(opposite.sum(-1), torch.ones(2, 1, 5, dtype=torch.float64))
    assert torch.equal(opposite.argsort(-1), attention.argsort(-1, descending=True))


@pytest.mark.parametrize("heads", [0, 3, 8])
def test_heads_must_divide_the_channels(heads):
    with pytest.raises(ValueError, match="heads that divide 4"):
        MDTA(4, heads=heads)
    for channels in ((4, 24), (24, 4)):
        with pytest.raises(ValueError, match="heads that divide"):
            CrossAttention(*channels, heads=heads)


def test_one_channel_a_head_has_no_complement():
    CrossAttention(4, 4, heads=4)
    with pytest.raises(ValueError, match="groups of at least 2"):
        CrossAttention(4, 4, heads=4, complementary=True)
