import pytest
import torch
from torch import nn

from ct_cncl.pipeline.networks import initialise_gaussian


def test_weights_follow_the_papers_distributions():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 512, 3), nn.BatchNorm2d(20000), nn.ConvTranspose2d(64, 64, 3))
    nn.init.constant_(network[1].bias, 7)
    initialise_gaussian(network, std=0.02)
    for layer, mean in ((network[0], 0), (network[1], 1), (network[2], 0)):
        assert layer.weight.mean().item() == pytest.approx(mean, abs=6e-4)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert layer.bias.abs().max().item() == 0


def test_layers_without_bias_or_scale_are_left_out():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 512, 3, bias=False), nn.InstanceNorm2d(512), nn.ReLU())
    initialise_gaussian(network, std=0.5)
    assert list(network.state_dict()) == ["0.weight"]
    assert network[0].weight.std().item() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("std", [0, -0.1])
def test_std_must_be_positive(std):
    with pytest.raises(ValueError, match="positive"):
        initialise_gaussian(nn.Conv2d(1, 1, 1), std=std)
