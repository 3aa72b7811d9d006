"""First and last layers of a predictor, which take in and give out image values."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.amp import is_autocast_available

from ct_cncl.pipeline.networks.branches import centre_slice

LEVEL = 0.25
"""0 HU in network units."""


def amplified(image: torch.Tensor, gain: float, level: float = LEVEL) -> torch.Tensor:
    """Return ``gain * (image - level)``: 0 HU becomes 0, and noise is no longer tiny compared with the weights.

    In network units, 10 HU of noise are 0.0025 on a level of 0.25. With ``gain = 16``, +-200 HU become +-0.8 and air
    becomes -4.

    >>> amplified(torch.tensor([0.25, 0.0]), 16.0).tolist()
    [0.0, -4.0]
    """
    return gain * (image - level)


class ImageConv2d(nn.Conv2d):
    """A convolution from or to the image itself, which stays in float32 under mixed precision.

    bfloat16 has 8 significant bits, which makes steps of 8 HU above 0 HU. After the first convolution, level and noise no
    longer share one number. In TorchScript, it is an ordinary convolution.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (its name in nn.Conv2d)
        """Map ``input`` (B, channels in, H, W) to (B, channels out, H, W)."""
        if torch.jit.is_scripting():
            output = self._conv_forward(input, self.weight, self.bias)
        else:
            with _float32(input.device.type):
                output = self._conv_forward(input.to(self.weight.dtype), self.weight, self.bias)
        return output


def lowered(features: torch.Tensor) -> torch.Tensor:
    """Convert the first feature map to the type of mixed precision, if that is on; otherwise all sums with it would be float32.

    >>> lowered(torch.ones(1)).dtype
    torch.float32
    """
    if not torch.jit.is_scripting():
        features = features.to(_type_of_convolutions(features))
    return features


def _float32(device_type: str) -> AbstractContextManager:
    """Turn mixed precision off in this context; the device "meta", on which operations are counted, does not support it."""
    return torch.autocast(device_type, enabled=False) if is_autocast_available(device_type) else nullcontext()


def _type_of_convolutions(features: torch.Tensor) -> torch.dtype:
    kind = features.device.type
    mixed = is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if mixed else features.dtype


class Head(nn.Module):
    """Turn a feature map into an image: a 3x3 convolution and, if features represent blocks of pixels, a pixel shuffle.

    Args:
        channels: number of channels of the feature map.
        scale: side in pixels of the block that each feature represents.
        residual: add the input's centre slice to the output.
        zero_start: start with an output of exactly zero (or of the input's centre slice if ``residual``).
        gain: the output of the convolution is divided by it.
    """

    def __init__(
        self, channels: int, *, scale: int = 1, residual: bool = False, zero_start: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.residual = residual
        self.gain = gain
        # A change that is added to the image may be rounded to 8 bits; the image itself may not.
        convolution = nn.Conv2d if residual else ImageConv2d
        self.convolution = convolution(channels, scale * scale, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()
        if zero_start:
            nn.init.zeros_(self.convolution.weight)
            nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Map ``features`` (B, C, H / scale, W / scale) of ``image`` (B, slices, H, W) to (B, 1, H, W) in network units."""
        output = self.shuffle(self.convolution(features)) / self.gain
        if self.residual:
            output = output + centre_slice(image)
        return output
