"""Channel attention: every channel scaled by what the whole image says about it."""

from __future__ import annotations

import torch
from torch import nn


class ChannelAttention(nn.Module):
    """Squeeze and excitation: x * sigmoid(W2 relu(W1 mean(x))), the mean over all pixels (Hu et al., CVPR 2018, eq. 3).

    Args:
        channels: of the feature map; the hidden layer has a sixteenth of them, at least 4.
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
        """``x`` (B, C, H, W), same shape out."""
        return x * self.weights(x)


class SimpleChannelAttention(nn.Module):
    """x * (W mean(x)), the mean over all pixels (SCA of NAFNet, Chen et al., ECCV 2022, eq. 6).

    Args:
        channels: of the feature map; the hidden layer has a sixteenth of them, at least 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (B, C, H, W), same shape out."""
        return x * self.weights(x)


def channel_attention_layer(name: str, channels: int) -> nn.Module:
    """Channel attention "ca", "sca" or "none".

    Raises:
        ValueError: another name.
    """
    if name == "ca":
        return ChannelAttention(channels)
    if name == "sca":
        return SimpleChannelAttention(channels)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"Expected channel attention 'ca', 'sca' or 'none', but got {name!r}.")
