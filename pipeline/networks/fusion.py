"""Fusions, which combine two estimates of the same image into one."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.ends import ImageConv2d


class ConvFusion(nn.Module):
    """One convolution over [C(y), y - N(y)]; with ``kernel_size=1`` it is the paper's fusion.

    It starts as the average of the two estimates, so that training begins with an image and not with noise.

    Args:
        kernel_size: odd; 1 in the paper.

    Raises:
        ValueError: ``kernel_size`` is even or below 1.
    """

    def __init__(self, *, kernel_size: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"Expected an odd kernel_size of at least 1, but got {kernel_size}.")
        self.convolution = ImageConv2d(2, 1, kernel_size, padding=kernel_size // 2, padding_mode="replicate")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weights and bias so that the output is the average of the two inputs."""
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        centre = self.convolution.kernel_size[0] // 2
        with torch.no_grad():
            self.convolution.weight[:, :, centre, centre] = 0.5

    def forward(self, content: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """Fuse ``content`` C(y) and ``denoised`` y - N(y), both (B, 1, H, W), to one image (B, 1, H, W)."""
        return self.convolution(torch.cat([content, denoised], dim=1))
