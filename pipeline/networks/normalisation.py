"""Normalisations of feature maps, by name."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel, with a scale and an offset a channel.

    Per pixel, y = weight * (x - mean) / sqrt(var + eps) + bias, mean and (biased) variance over the channels. Nothing depends on
    the batch or on the size of the image (Ba et al. 2016; as in NAFNet, Chen et al., ECCV 2022).

    The output lies in memory as channels_last, in which the statistics and the convolutions after it run fastest on a CPU.

    Args:
        channels: of the feature map.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.channels = channels
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (B, C, H, W), same shape out."""
        x = x.permute(0, 2, 3, 1)
        return functional.layer_norm(x, [self.channels], self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def norm_layer(name: str, channels: int) -> nn.Module:
    """A normalisation of feature maps (B, C, H, W).

    Args:
        name: "batch" (statistics of the batch in training, running ones after), "layer" (channels of each pixel), "instance"
            (pixels of each channel) or "none".
        channels: of the feature map.

    Raises:
        ValueError: another name.
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
