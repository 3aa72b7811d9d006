"""Blocks that restoration networks are stacked from, feature map to feature map of the same shape."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.activation import SimpleGate, activation_layer, widening
from ct_cncl.pipeline.networks.attention import MDTA
from ct_cncl.pipeline.networks.channel_attention import SimpleChannelAttention
from ct_cncl.pipeline.networks.normalisation import norm_layer


class ResidualBlock(nn.Module):
    """x + convolution(activation(convolution(norm(x)))), both 3x3. Without a norm: two plain convolutions, fast on a CPU.

    Args:
        channels: of the feature map.
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
        """``x`` (B, C, H, W), same shape out."""
        return x + self.second(self.activation(self.first(self.norm(x))))


class NAFBlock(nn.Module):
    """The block without activation functions of NAFNet (Chen et al., ECCV 2022, fig. 3c).

    x += beta * conv1(SCA(gate(depthwise3(conv1(norm(x)))))), then x += gamma * conv1(gate(conv1(norm(x)))); the gates halve
    doubled channels, beta and gamma start at zero.

    Args:
        channels: of the feature map.
        norm: see ``norm_layer``; the paper's is "layer".
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
        """``x`` (B, C, H, W), same shape out."""
        x = x + self.beta * self.mixing(x)
        return x + self.gamma * self.feed_forward(x)


class GDFN(nn.Module):
    """Restormer's feed-forward network: conv1(gelu(a) * b), (a, b) = depthwise3(conv1(x)) (Zamir et al., CVPR 2022, eq. 3).

    MONAI's ``FeedForward`` computes the same, but cannot be scripted.

    Args:
        channels: of the feature map.
        expansion: hidden channels for each channel.
    """

    def __init__(self, channels: int, *, expansion: float = 2.66) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.inwards = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (B, C, H, W), same shape out."""
        passed, gate = self.depthwise(self.inwards(x)).chunk(2, dim=1)
        return self.out(functional.gelu(passed) * gate)


class RestormerBlock(nn.Module):
    """x += MDTA(norm(x)), then x += GDFN(norm(x)) (Zamir et al., CVPR 2022, fig. 2).

    Args:
        channels: of the feature map.
        heads: of the attention.
        norm: see ``norm_layer``; the paper's is "layer", MONAI's "instance".
        expansion: of the feed-forward network.
    """

    def __init__(self, channels: int, *, heads: int = 1, norm: str = "layer", expansion: float = 2.66) -> None:
        super().__init__()
        self.attention = nn.Sequential(norm_layer(norm, channels), MDTA(channels, heads=heads))
        self.feed_forward = nn.Sequential(norm_layer(norm, channels), GDFN(channels, expansion=expansion))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (B, C, H, W), same shape out."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)
