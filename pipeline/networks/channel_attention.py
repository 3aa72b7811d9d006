"""Channel attention: every channel is scaled by a weight that depends on the whole image."""

from __future__ import annotations

import torch
from torch import nn


class ChannelAttention(nn.Module):
    """Squeeze and excitation: x * sigmoid(W2 relu(W1 mean(x))), with the mean over all pixels (Hu et al., CVPR 2018, eq. 3).

    Args:
        channels: number of channels of the feature map; the hidden layer has a sixteenth of them, at least 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        return x * self.weights(x)


class SimpleChannelAttention(nn.Module):
    """x * (W mean(x)), with the mean over all pixels (SCA of NAFNet, Chen et al., ECCV 2022, eq. 6).

    Args:
        channels: number of channels of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        return x * self.weights(x)


def channel_attention_layer(name: str, channels: int) -> nn.Module:
    """Make channel attention by name: "ca", "sca" or "none".

    Raises:
        ValueError: the name is unknown.
    """
    if name == "ca":
        return ChannelAttention(channels)
    if name == "sca":
        return SimpleChannelAttention(channels)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"Expected channel attention 'ca', 'sca' or 'none', but got {name!r}.")
