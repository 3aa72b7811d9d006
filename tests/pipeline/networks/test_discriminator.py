import pytest
import torch
from torch import nn

from ct_cncl.pipeline.networks.discriminator import Amplified, Detail, Relative


class Keep(nn.Module):
    """Returns what it was given, as a discriminator would its feature maps and logits."""

    def forward(self, triple):
        return [triple]


def test_images_are_amplified_about_0_hu_and_noise_about_0():
    hu = torch.tensor([0.0, 40.0, -1024.0])  # reference, removed noise, image
    triple = torch.stack([(hu[0] + 1024) / 4096, hu[1] / 4096, (hu[2] + 1024) / 4096]).view(1, 3, 1, 1)
    (seen,) = Amplified(Keep(), gain=16.0)(triple)
    assert seen.flatten().tolist() == pytest.approx([0.0, 16 * 40 / 4096, -4.0])


def test_in_bfloat16_noise_of_2_hu_remains():
    """Cast as autocast does, before the first convolution: unamplified it is rounded to steps of 8 HU."""
    image = (1024 + 40 + 2 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))) / 4096
    (seen,) = Amplified(Keep(), gain=16.0)(image)
    lost = (seen.bfloat16().float() - seen)[:, ::2].std() / 16 * 4096
    plain = (image.bfloat16().float() - image)[:, ::2].std() * 4096
    assert lost < 0.2
    assert plain > 1.5


def test_gain_must_be_positive():
    with pytest.raises(ValueError, match="positive gain"):
        Amplified(Keep(), gain=0.0)


def test_relative_shows_the_removed_noise_twice_and_the_image():
    hu = torch.tensor([25.0, 15.0, 40.0])  # result, N(y), image: 15 HU were taken off
    triple = torch.stack([(hu[0] + 1024) / 4096, hu[1] / 4096, (hu[2] + 1024) / 4096]).view(1, 3, 1, 1)
    (seen,) = Relative(Keep())(triple)
    assert seen.flatten().tolist() == pytest.approx([128 * 15 / 4096, 128 * 15 / 4096, 16 * 40 / 4096], abs=1e-4)


@pytest.mark.parametrize("gains", [{"gain": 0.0}, {"noise_gain": -1.0}])
def test_relative_gains_must_be_positive(gains):
    with pytest.raises(ValueError, match="positive gains"):
        Relative(Keep(), **gains)


def test_detail_has_no_level_and_keeps_the_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, 40, 40, generator=generator, dtype=torch.float64) * 10 / 4096
    (seen,) = Detail(Keep(), gain=128.0, size=7, limit=1e6)(noise + 0.3)
    mean = torch.zeros_like(noise[..., 3:-3, 3:-3])
    for dy in range(7):
        for dx in range(7):
            mean += noise[..., dy : dy + 34, dx : dx + 34] / 49
    torch.testing.assert_close(seen[..., 3:-3, 3:-3], 128 * (noise[..., 3:-3, 3:-3] - mean))
    (flat,) = Detail(Keep())(torch.full((1, 3, 9, 9), 0.3))
    assert flat.abs().max() < 1e-4


def test_detail_of_an_edge_is_limited():
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1.0  # 4096 HU
    (seen,) = Detail(Keep(), limit=2.0)(edge)
    assert seen.abs().max().item() == pytest.approx(2.0, abs=1e-3)


def test_detail_of_the_noise_can_be_hidden():
    triple = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (seen,) = Detail(Keep(), judge_noise=False)(triple)
    (all_of_it,) = Detail(Keep())(triple)
    torch.testing.assert_close(seen[:, ::2], all_of_it[:, ::2])
    assert all_of_it[:, 1].abs().min() > 0
    assert seen[:, 1].abs().max() == 0


@pytest.mark.parametrize("bad", [{"gain": 0.0}, {"limit": -1.0}, {"size": 4}, {"size": 1}])
def test_detail_options_are_checked(bad):
    with pytest.raises(ValueError, match="Expected"):
        Detail(Keep(), **bad)
