"""Normalisations of feature maps, by name."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel, with a scale and an offset per channel.

    Per pixel, y = weight * (x - mean) / sqrt(var + eps) + bias, with mean and (biased) variance over the channels. It does not
    depend on the batch or on the size of the image (Ba et al. 2016; as in NAFNet, Chen et al., ECCV 2022).

    The output has the memory format channels_last, in which the statistics and later convolutions run fastest on a CPU.

    Args:
        channels: number of channels of the feature map.
        eps: constant added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.channels = channels
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        x = x.permute(0, 2, 3, 1)
        return functional.layer_norm(x, [self.channels], self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def norm_layer(name: str, channels: int) -> nn.Module:
    """Make a normalisation of feature maps (B, C, H, W).

    Args:
        name: "batch" (over the batch in training, running statistics in evaluation), "layer" (over the channels of each
            pixel), "instance" (over the pixels of each channel) or "none".
        channels: number of channels of the feature map.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return LayerNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"Expected norm 'batch', 'layer', 'instance' or 'none', but got {name!r}.")
