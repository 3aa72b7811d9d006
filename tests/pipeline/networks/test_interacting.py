"""Branches that see each other's features."""

from functools import partial

import pytest
import torch

from ct_cncl.pipeline.networks import (
    CNCL,
    BlockDecoder,
    BlockUNet,
    BranchOutputs,
    ConvFusion,
    DnCNN,
    EmbeddedFusion,
    Exchange,
    FeatureAttention,
    FeatureFusion,
    InteractingCNCL,
    SRDenseNet,
    UNet,
)
from ct_cncl.pipeline.networks.interaction import CrossAttentionBlock, SelfAttentionBlock


def unet(**options):
    return UNet(**{"width": 4, "depth": 2} | options)


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval()


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_without_interaction_it_is_cncl():
    content, noise, fusion = unet(), unet(residual=True), ConvFusion(kernel_size=3)
    together = randomised(InteractingCNCL(content=content, noise=noise, fusion=fusion))
    apart = CNCL(content=content, noise=noise, fusion=fusion)
    for got, expected in zip(together.branches(image(2, 1, 13, 9)), apart.branches(image(2, 1, 13, 9))):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def sees_the_other(network, *, branch):
    """Whether the gradient of one branch's output reaches the other branch's first weights."""
    x = image(1, 1, 16, 16)
    output = getattr(network.branches(x), branch).square().sum()
    other = network.noise if branch == "content" else network.content
    gradient = torch.autograd.grad(output, next(other.parameters()), allow_unused=True)[0]
    return gradient is not None and bool(gradient.abs().max() > 0)


@pytest.mark.parametrize("branch", ["content", "noise"])
@pytest.mark.parametrize(
    ("interaction", "expected"),
    [
        (None, False),
        (partial(FeatureAttention, mdta=1, cross=0), False),
        (FeatureAttention, True),
        (partial(FeatureAttention, complementary=True), True),
        (partial(FeatureAttention, skip=False), True),
        (Exchange, True),
    ],
)
@pytest.mark.parametrize("levels", ["last", "every"])
def test_branches_see_each_other_where_they_interact(levels, interaction, expected, branch):
    network = InteractingCNCL(content=unet(), noise=unet(), fusion=ConvFusion(), interaction=interaction, levels=levels)
    assert sees_the_other(randomised(network), branch=branch) is expected


def test_interactions_stand_at_the_asked_levels():
    made = []

    def interaction(*channels):
        made.append(channels)
        return Exchange(*channels)

    pair = {"content": UNet(width=4, depth=3), "noise": UNet(width=8, depth=3), "fusion": ConvFusion()}
    assert len(InteractingCNCL(**pair, interaction=interaction).interactions) == 1
    assert made == [(2, 4)]
    made.clear()
    assert len(InteractingCNCL(**pair, interaction=interaction, levels="every").interactions) == 3
    assert made == [(8, 16), (4, 8), (2, 4)]


def test_every_level_in_plain_steps():
    network = randomised(
        InteractingCNCL(content=unet(), noise=unet(), fusion=ConvFusion(), interaction=Exchange, levels="every")
    )
    x = image(1, 1, 8, 12)
    c, c_skips = network.content.encode(x)
    n, n_skips = network.noise.encode(x)
    for level in range(2):
        c, n = network.content.up[level](c, c_skips[1 - level]), network.noise.up[level](n, n_skips[1 - level])
        exchange = network.interactions[level]
        c, n = c + exchange.to_content(n), n + exchange.to_noise(c)
    content, noise = network.content.head(c, x), network.noise.head(n, x)
    fused = network.fusion(content, x - noise)
    for got, expected in zip(network.branches(x), (content, noise, fused)):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_shared_encoder_equals_two_of_the_same_weights():
    options = {"width": 4, "decoder_blocks": (1, 1), "unshuffle": 2, "block": "residual"}
    whole = {"encoder_blocks": (1, 1), **options}
    fusion = partial(FeatureFusion, gated=True)
    shared = randomised(
        InteractingCNCL(
            content=BlockUNet(**whole),
            noise=BlockDecoder(**options),
            fusion=fusion,
            interaction=Exchange,
            levels="every",
        )
    )
    double = InteractingCNCL(
        content=BlockUNet(**whole), noise=BlockUNet(**whole), fusion=fusion, interaction=Exchange, levels="every"
    )
    state = dict(shared.state_dict())
    for name in double.state_dict():
        if name.startswith("noise.") and name not in state:
            state[name] = state[name.replace("noise.", "content.", 1)]
    double.load_state_dict(state)
    for got, expected in zip(shared.branches(image(1, 1, 13, 22)), double.branches(image(1, 1, 13, 22))):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    parameters = [sum(p.numel() for p in network.parameters()) for network in (shared, double)]
    assert parameters[0] < 0.75 * parameters[1]


def test_predictors_of_different_kinds_meet_at_their_last_features():
    network = randomised(
        InteractingCNCL(
            content=DnCNN(width=4, depth=3),
            noise=SRDenseNet(width=8, blocks=1, layers=2),
            fusion=partial(FeatureFusion, mix="cross"),
            interaction=FeatureAttention,
        )
    )
    assert network(image(1, 1, 7, 9)).shape == (1, 1, 7, 9)
    assert sees_the_other(network, branch="content")


@pytest.mark.parametrize("size", [(1, 1), (200, 331), (5, 7)])
def test_starts_at_the_input_exactly(size):
    options = {"width": 4, "unshuffle": 2, "block": "residual", "zero_start": True}
    network = InteractingCNCL(
        content=BlockUNet(residual=True, **options),
        noise=BlockUNet(**options),
        fusion=partial(FeatureFusion, gated=True),
        interaction=Exchange,
        levels="every",
    )
    x = image(1, 1, *size)
    with torch.no_grad():
        content, noise, fused = network.branches(x)
    assert torch.equal(content, x)
    assert torch.equal(noise, torch.zeros_like(x))
    assert torch.equal(fused, x)


@pytest.mark.parametrize(
    "fusion", [EmbeddedFusion(width=4, gated=True), partial(FeatureFusion, gated=True)], ids=["images", "features"]
)
def test_a_gate_takes_each_pixel_from_between_the_estimates(fusion):
    network = randomised(InteractingCNCL(content=unet(), noise=unet(), fusion=fusion, interaction=FeatureAttention))
    x = image(2, 1, 13, 10)
    with torch.no_grad():
        content, noise, fused = network.branches(x)
    share = (fused - (x - noise)) / (content - (x - noise))
    assert 0 <= share.min() < share.max() <= 1
    assert share.std() > 0


@pytest.mark.parametrize("module", [SelfAttentionBlock(4), CrossAttentionBlock(4, 4)])
def test_blocks_with_skip_are_the_identity_where_attention_finds_nothing(module):
    for name, parameter in module.named_parameters():
        if "out" in name:
            torch.nn.init.zeros_(parameter)
    x = image(1, 4, 5, 6)
    outputs = module(x) if isinstance(module, SelfAttentionBlock) else module(x, x)
    for output in [outputs] if torch.is_tensor(outputs) else outputs:
        assert torch.equal(output, x)


def test_blocks_without_skip_have_neither_skip_nor_norm():
    for kind, inputs in ((SelfAttentionBlock, 1), (CrossAttentionBlock, 2)):
        block = kind(*[4] * inputs, skip=False)
        assert not any("norm" in name for name, _ in block.named_parameters())
        xs = [image(1, 4, 5, 6, seed=seed) for seed in range(inputs)]
        torch.testing.assert_close(block(*xs), block.attention(*xs))


def test_feature_attention_runs_self_attention_before_cross_attention():
    attention = randomised(FeatureAttention(4, 6, mdta=2, cross=2))
    content, noise = image(1, 4, 5, 6), image(1, 6, 5, 6, seed=1)
    c, n = content, noise
    for block in range(2):
        c, n = attention.content_blocks[block](c), attention.noise_blocks[block](n)
    for block in range(2):
        c, n = attention.cross_blocks[block](c, n)
    torch.testing.assert_close(attention(content, noise), (c, n))


def test_refused_combinations():
    with pytest.raises(ValueError, match="'last' or 'every'"):
        InteractingCNCL(content=unet(), noise=unet(), fusion=ConvFusion(), levels="first")
    with pytest.raises(ValueError, match="same scales"):
        InteractingCNCL(content=unet(), noise=unet(depth=3), fusion=ConvFusion(), levels="every")
    with pytest.raises(ValueError, match="same scales"):
        InteractingCNCL(content=unet(), noise=BlockUNet(width=4, unshuffle=2), fusion=ConvFusion())
    with pytest.raises(ValueError, match="decoder levels .* DnCNN"):
        InteractingCNCL(content=DnCNN(width=4), noise=DnCNN(width=4), fusion=ConvFusion(), levels="every")
    with pytest.raises(ValueError, match="channels .* Identity"):
        InteractingCNCL(content=torch.nn.Identity(), noise=unet(), fusion=ConvFusion())
    with pytest.raises(ValueError, match="to have content's channels"):
        InteractingCNCL(content=BlockUNet(width=4), noise=BlockDecoder(width=8), fusion=ConvFusion())
    with pytest.raises(ValueError, match="mdta and cross"):
        FeatureAttention(4, 4, mdta=0, cross=0)


def test_branch_outputs_takes_it_as_a_cncl():
    network = randomised(InteractingCNCL(content=unet(), noise=unet(), fusion=ConvFusion(), interaction=Exchange))
    for got, expected in zip(BranchOutputs(network)(image(1, 1, 8, 8)), network.branches(image(1, 1, 8, 8))):
        assert torch.equal(got, expected)
