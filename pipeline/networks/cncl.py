"""CNCL: content and noise are predicted side by side, then fused (Geng et al., IEEE TMI 41(2), 2022)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ct_cncl.pipeline.networks.branches import Branches, centre_slice, pad_to_multiple
from ct_cncl.pipeline.networks.initialise import initialise_gaussian
from ct_cncl.pipeline.networks.level import keep_level


class CNCL(nn.Module):
    """Content-noise complementary learning: two predictors and one fusion, from one image to one image.

    Of an image with several slices (B, C, H, W), C odd, the centre slice is denoised; all outputs belong to it.

    Args:
        content: predictor of the content, which maps (B, C, H, W) to (B, 1, H, W). If it has an attribute ``multiple``, the
            sides of its input must be divisible by that.
        noise: predictor of the noise, of the same kind.
        fusion: module called as ``fusion(content, y - noise)``.
        init_std: if given, the weights of both predictors start from N(0, init_std) (0.02 in the paper); the fusion keeps its
            own initial weights.
        level_sigma: above 0, no low frequencies are removed: standard deviation of the Gaussian of ``keep_level``, pixels.

    Raises:
        ValueError: ``level_sigma`` is below 0.
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
        """Content, noise and fused image for ``image`` (B, C, H, W) in network units; any H and W."""
        padded = pad_to_multiple(image, self.multiple)
        content = self.content(padded)
        noise = self.noise(padded)
        fused = self.fusion(content, centre_slice(padded) - noise)
        return self.cropped(image, content, noise, fused)

    def cropped(self, image: torch.Tensor, content: torch.Tensor, noise: torch.Tensor, fused: torch.Tensor) -> Branches:
        """Cut the outputs for ``image`` to its size and, with ``level_sigma``, give the fused image its level."""
        height, width = image.shape[-2:]
        fused = fused[..., :height, :width]
        if self.level_sigma > 0:
            fused = keep_level(centre_slice(image), fused, self.level_sigma)
        return Branches(content[..., :height, :width], noise[..., :height, :width], fused)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The fused image (B, 1, H, W) for ``image`` (B, C, H, W) in network units; any H and W."""
        return self.branches(image).fused
