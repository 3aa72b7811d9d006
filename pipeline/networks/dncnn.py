"""DnCNN (Zhang et al., IEEE TIP 26(7), 2017) as a predictor."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.activation import activation_layer
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d
from ct_cncl.pipeline.networks.normalisation import norm_layer


class DnCNN(nn.Module):
    """A chain of 3x3 convolutions at full resolution: one with ReLU, ``depth - 2`` with norm and ReLU, and one to the image.

    Args:
        width: number of channels; 64 in the paper.
        depth: number of convolutions; 17 in the paper, for a known noise level.
        norm: see ``norm_layer``.
        in_channels: slices of the input, odd.
        residual: add the input's centre slice to the output, so that the network learns the difference, as in the paper.
        zero_start: start with an output of zero (or of the input if ``residual``).

    Raises:
        ValueError: ``depth`` is below 2, or ``norm`` is unknown.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 17,
        norm: str = "batch",
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"Expected a depth of at least 2, but got {depth}.")
        layers: list[nn.Module] = [ImageConv2d(in_channels, width, 3, padding=1), activation_layer("relu")]
        for _ in range(depth - 2):
            # Normalisation subtracts the mean, so a bias before it would have no effect.
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=norm == "none"), norm_layer(norm, width)]
            layers += [activation_layer("relu")]
        self.layers = nn.Sequential(*layers)
        self.up = nn.ModuleList()
        self.channels, self.scales = [width], [1]
        self.head = Head(width, residual=residual, zero_start=zero_start)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``image`` (B, slices, H, W) to the last feature map (B, width, H, W); there are no skips."""
        skips: list[torch.Tensor] = []
        return self.layers(image), skips

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units to (B, 1, H, W)."""
        return self.head(self.layers(image), image)
