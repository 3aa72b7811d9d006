"""Both ends of a predictor: image units in, image units out."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.branches import centre_slice

LEVEL = 0.25
"""0 HU in network units."""


def amplified(image: torch.Tensor, gain: float, level: float = LEVEL) -> torch.Tensor:
    """``gain * (image - level)``: 0 HU at 0, and noise that is not tiny beside the weights.

    In network units, 10 HU of noise are 0.0025 on a level of 0.25. With ``gain = 16``, a soft-tissue window of +-200 HU
    is +-0.8 and air is -4.

    >>> amplified(torch.tensor([0.25, 0.0]), 16.0).tolist()
    [0.0, -4.0]
    """
    return gain * (image - level)


class ImageConv2d(nn.Conv2d):
    """A convolution of the image itself, in float32 under mixed precision, too.

    bfloat16 keeps 8 digits: steps of 8 HU above 0 HU. After the first convolution, level and noise are no longer one number.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (its name in nn.Conv2d)
        """``input`` (B, slices, H, W) to (B, C, H, W)."""
        if not torch.jit.is_scripting():
            with torch.autocast(input.device.type, enabled=False):
                return self._conv_forward(input, self.weight, self.bias)
        return self._conv_forward(input, self.weight, self.bias)


class Head(nn.Module):
    """Feature map to image: a 3x3 convolution and, where features stand for blocks of pixels, a pixel shuffle.

    Args:
        channels: of the feature map.
        scale: pixels that a feature stands for, along each side.
        residual: add the input's centre slice to the output.
        zero_start: start with an output of exactly zero (of the input's centre slice where ``residual``).
        gain: the convolution works in units of ``1 / gain`` of the network's.
    """

    def __init__(
        self, channels: int, *, scale: int = 1, residual: bool = False, zero_start: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.residual = residual
        self.gain = gain
        self.convolution = nn.Conv2d(channels, scale * scale, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()
        if zero_start:
            nn.init.zeros_(self.convolution.weight)
            nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """``features`` (B, C, H / scale, W / scale) of ``image`` (B, slices, H, W), to (B, 1, H, W) in network units."""
        output = self.shuffle(self.convolution(features)) / self.gain
        if self.residual:
            output = output + centre_slice(image)
        return output
