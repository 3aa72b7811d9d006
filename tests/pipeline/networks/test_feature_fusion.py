import pytest
import torch

from ct_cncl.pipeline.networks import EmbeddedFusion, FeatureFusion
from ct_cncl.pipeline.networks.feature_fusion import JointRestormerBlock, mix_layer

MIXES = ["none", "scam", "cross", "restormer"]


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_every_fusion_starts_as_the_average(mix, gated):
    content, denoised = rand(2, 1, 8, 6), rand(2, 1, 8, 6, seed=1)
    fusion = EmbeddedFusion(width=4, mix=mix, gated=gated)
    torch.testing.assert_close(fusion(content, denoised), (content + denoised) / 2)
    assert torch.equal(fusion(content, content), content)
    on_features = FeatureFusion(4, 6, scale=2, mix=mix, gated=gated)
    output = on_features(rand(2, 4, 4, 3), rand(2, 6, 4, 3, seed=2), content, denoised)
    torch.testing.assert_close(output, (content + denoised) / 2)


@pytest.mark.parametrize("mix", MIXES)
def test_a_gated_fusion_takes_each_pixel_from_between_both_estimates(mix):
    content, denoised = rand(2, 1, 8, 6), rand(2, 1, 8, 6, seed=1)
    features = rand(2, 4, 4, 3), rand(2, 6, 4, 3, seed=2)
    for fused in (
        randomised(EmbeddedFusion(width=4, mix=mix, gated=True))(content, denoised),
        randomised(FeatureFusion(4, 6, scale=2, mix=mix, gated=True))(*features, content, denoised),
    ):
        share = (fused - denoised) / (content - denoised)
        assert -1e-5 <= share.min() < share.max() <= 1 + 1e-5
        assert share.std() > 0


def test_gate_in_closed_form():
    """One feature a branch, weights 2 and -3, bias 0.5: the gate is sigmoid(2 c - 3 n + 0.5)."""
    fusion = FeatureFusion(1, 1, gated=True)
    with torch.no_grad():
        fusion.convolution.weight.copy_(torch.tensor([2.0, -3.0]).view(1, 2, 1, 1))
        fusion.convolution.bias.fill_(0.5)
    c, n = rand(1, 1, 3, 4), rand(1, 1, 3, 4, seed=1)
    gate = 1 / (1 + torch.exp(-(2 * c - 3 * n + 0.5)))
    content, denoised = rand(1, 1, 3, 4, seed=2), rand(1, 1, 3, 4, seed=3)
    torch.testing.assert_close(fusion(c, n, content, denoised), gate * content + (1 - gate) * denoised)


def test_ungated_evidence_is_added_in_units_of_the_gain():
    fusion = FeatureFusion(1, 1, gain=8.0)
    with torch.no_grad():
        fusion.convolution.weight.fill_(1.0)
    c, n = rand(1, 1, 3, 4), rand(1, 1, 3, 4, seed=1)
    content, denoised = rand(1, 1, 3, 4, seed=2), rand(1, 1, 3, 4, seed=3)
    torch.testing.assert_close(fusion(c, n, content, denoised), (content + denoised) / 2 + (c + n) / 8)


def test_embedding_treats_both_estimates_alike():
    """Swapping the estimates swaps the embeddings."""
    fusion = EmbeddedFusion(width=4)
    content, denoised = rand(1, 1, 5, 6), rand(1, 1, 5, 6, seed=1)
    seen = []
    fusion.fusion.forward = lambda c, n, *images: seen.append((c, n)) or images[0]
    fusion(content, denoised)
    fusion(denoised, content)
    for got, expected in zip(seen[0], reversed(seen[1])):
        assert torch.equal(got, expected)
    assert not torch.equal(*seen[0])


def test_joint_block_sees_both_sides():
    block = randomised(JointRestormerBlock(2, 3))
    content, noise = rand(1, 2, 4, 5).requires_grad_(), rand(1, 3, 4, 5).requires_grad_()
    first, second = block(content, noise)
    assert (first.shape, second.shape) == (content.shape, noise.shape)
    for output in (first, second):
        for gradient in torch.autograd.grad(output.square().sum(), [content, noise], retain_graph=True):
            assert gradient.abs().max() > 0


def test_refused_options():
    with pytest.raises(ValueError, match="Expected mix"):
        mix_layer("stereo", 2, 2)
    with pytest.raises(ValueError, match="odd kernel_size"):
        FeatureFusion(2, 2, kernel_size=2)
