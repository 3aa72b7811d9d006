"""Blocks of restoration networks, which map a feature map to one of the same shape."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.activation import SimpleGate, activation_layer, widening
from ct_cncl.pipeline.networks.attention import MDTA
from ct_cncl.pipeline.networks.channel_attention import SimpleChannelAttention
from ct_cncl.pipeline.networks.normalisation import norm_layer


class ResidualBlock(nn.Module):
    """x + convolution(activation(convolution(norm(x)))), with 3x3 convolutions. Without a norm it is fast on a CPU.

    Args:
        channels: number of channels of the feature map.
        norm: see ``norm_layer``.
        activation: see ``activation_layer``.
    """

    def __init__(self, channels: int, *, norm: str = "none", activation: str = "relu") -> None:
        super().__init__()
        self.norm = norm_layer(norm, channels)
        self.first = nn.Conv2d(channels, widening(activation) * channels, 3, padding=1)
        self.activation = activation_layer(activation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        return x + self.second(self.activation(self.first(self.norm(x))))


class NAFBlock(nn.Module):
    """NAFNet's block, which has no activation functions (Chen et al., ECCV 2022, fig. 3c).

    x += beta * conv1(SCA(gate(depthwise3(conv1(norm(x)))))), then x += gamma * conv1(gate(conv1(norm(x)))). The convolution
    before each gate doubles the channels and the gate halves them; beta and gamma start at zero.

    Args:
        channels: number of channels of the feature map.
        norm: see ``norm_layer``; "layer" in the paper.
    """

    def __init__(self, channels: int, *, norm: str = "layer") -> None:
        super().__init__()
        doubled = 2 * channels
        self.mixing = nn.Sequential(
            norm_layer(norm, channels),
            nn.Conv2d(channels, doubled, 1),
            nn.Conv2d(doubled, doubled, 3, padding=1, groups=doubled),
            SimpleGate(),
            SimpleChannelAttention(channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.feed_forward = nn.Sequential(
            norm_layer(norm, channels),
            nn.Conv2d(channels, doubled, 1),
            SimpleGate(),
            nn.Conv2d(channels, channels, 1),
        )
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        x = x + self.beta * self.mixing(x)
        return x + self.gamma * self.feed_forward(x)


class GDFN(nn.Module):
    """Restormer's feed-forward network: conv1(gelu(a) * b) with (a, b) = depthwise3(conv1(x)) (Zamir et al., 2022, eq. 3).

    MONAI's ``FeedForward`` computes the same, but cannot be scripted.

    Args:
        channels: number of channels of the feature map.
        expansion: hidden channels for each channel.
    """

    def __init__(self, channels: int, *, expansion: float = 2.66) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.inwards = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        passed, gate = self.depthwise(self.inwards(x)).chunk(2, dim=1)
        return self.out(functional.gelu(passed) * gate)


class RestormerBlock(nn.Module):
    """x += MDTA(norm(x)), then x += GDFN(norm(x)) (Zamir et al., CVPR 2022, fig. 2).

    Args:
        channels: number of channels of the feature map.
        heads: heads of the attention.
        norm: see ``norm_layer``; "layer" in the paper, "instance" in MONAI.
        expansion: hidden channels of the feed-forward network for each channel.
    """

    def __init__(self, channels: int, *, heads: int = 1, norm: str = "layer", expansion: float = 2.66) -> None:
        super().__init__()
        self.attention = nn.Sequential(norm_layer(norm, channels), MDTA(channels, heads=heads))
        self.feed_forward = nn.Sequential(norm_layer(norm, channels), GDFN(channels, expansion=expansion))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)
