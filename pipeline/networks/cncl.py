"""CNCL: content and noise predicted side by side, then fused (Geng et al., IEEE TMI 41(2), 2022)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ct_cncl.pipeline.networks.branches import Branches, centre_slice, pad_to_multiple
from ct_cncl.pipeline.networks.initialise import initialise_gaussian
from ct_cncl.pipeline.networks.level import keep_level


class CNCL(nn.Module):
    """Content-noise complementary learning: two predictors, one fusion, one image in and one image out.

    An image of several slices (B, C, H, W), C odd, is denoised in its centre slice, which every output is about.

    Args:
        content: predictor of the content, (B, C, H, W) to (B, 1, H, W). Its attribute ``multiple``, where it has one,
            says what the sides of its input must be divisible by.
        noise: predictor of the noise, likewise.
        fusion: module called as ``fusion(content, y - noise)``.
        init_std: where given, both predictors start from N(0, init_std) weights (the paper: 0.02); the fusion keeps
            its own start.
        level_sigma: where above 0, the removed image y - F has no low frequencies: see ``keep_level``; pixels.

    Raises:
        ValueError: a level_sigma below 0.
    """

    def __init__(
        self,
        *,
        content: nn.Module,
        noise: nn.Module,
        fusion: nn.Module,
        init_std: float | None = None,
        level_sigma: float = 0.0,
    ) -> None:
        super().__init__()
        if not level_sigma >= 0:
            raise ValueError(f"Expected a level_sigma of 0 (off) or more pixels, but got {level_sigma}.")
        if init_std is not None:
            initialise_gaussian(content, std=init_std)
            initialise_gaussian(noise, std=init_std)
        self.content = content
        self.noise = noise
        self.fusion = fusion
        self.level_sigma = float(level_sigma)
        self.multiple = math.lcm(int(getattr(content, "multiple", 1)), int(getattr(noise, "multiple", 1)))

    @torch.jit.export
    def branches(self, image: torch.Tensor) -> Branches:
        """Content, noise and fused image of ``image`` (B, C, H, W), in network units, any H and W."""
        padded = pad_to_multiple(image, self.multiple)
        content = self.content(padded)
        noise = self.noise(padded)
        fused = self.fusion(content, centre_slice(padded) - noise)
        return self.cropped(image, content, noise, fused)

    def cropped(self, image: torch.Tensor, content: torch.Tensor, noise: torch.Tensor, fused: torch.Tensor) -> Branches:
        """What was predicted for ``image``, without what was padded at its ends, and with its level where that is kept."""
        height, width = image.shape[-2:]
        fused = fused[..., :height, :width]
        if self.level_sigma > 0:
            fused = keep_level(centre_slice(image), fused, self.level_sigma)
        return Branches(content[..., :height, :width], noise[..., :height, :width], fused)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The fused image of ``image`` (B, C, H, W), (B, 1, H, W) in network units, any H and W."""
        return self.branches(image).fused
