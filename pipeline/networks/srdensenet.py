"""SRDenseNet (Tong et al., ICCV 2017) as a predictor, without its upsampling."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.activation import activation_layer
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d, lowered
from ct_cncl.pipeline.networks.normalisation import norm_layer


class DenseBlock(nn.Module):
    """3x3 convolutions, each of which sees the outputs of all previous ones; the block returns all outputs together.

    Args:
        in_channels: channels of the input.
        growth: channels that each convolution adds.
        layers: number of convolutions.
        norm: see ``norm_layer``.
    """

    def __init__(self, in_channels: int, *, growth: int, layers: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels if layer == 0 else layer * growth, growth, 3, padding=1, bias=norm == "none"),
                norm_layer(norm, growth),
                activation_layer("relu"),
            )
            for layer in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, in_channels, H, W) to (B, growth * layers, H, W)."""
        outputs: list[torch.Tensor] = []
        for layer in self.layers:
            outputs.append(layer(x))
            x = torch.cat(outputs, dim=1)
        return x


class SRDenseNet(nn.Module):
    """Dense blocks at full resolution; a 1x1 convolution reduces all their outputs before the image is made.

    This is the paper's "SRDenseNet_All" without its two transposed convolutions, since input and output have the same size.

    Args:
        width: output channels of each dense block; 128 in the paper, from 8 layers of growth 16.
        blocks: number of dense blocks; 8 in the paper.
        layers: number of convolutions in a block; divides ``width``.
        norm: see ``norm_layer``; "none" in the paper.
        in_channels: slices of the input, odd.
        residual: add the input's centre slice to the output.
        zero_start: start with an output of zero (or of the input if ``residual``).

    Raises:
        ValueError: ``layers`` does not divide ``width``, there is no block or layer, or ``norm`` is unknown.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        blocks: int = 8,
        layers: int = 8,
        norm: str = "none",
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        if min(blocks, layers) < 1 or width % layers:
            raise ValueError(
                f"Expected blocks and layers of at least 1 and a width divisible by layers, but got {blocks}, {layers} and {width}."
            )
        self.stem = nn.Sequential(ImageConv2d(in_channels, width, 3, padding=1), activation_layer("relu"))
        self.blocks = nn.ModuleList(
            DenseBlock(width, growth=width // layers, layers=layers, norm=norm) for _ in range(blocks)
        )
        self.bottleneck = nn.Sequential(nn.Conv2d((blocks + 1) * width, 2 * width, 1), activation_layer("relu"))
        self.up = nn.ModuleList()
        self.channels, self.scales = [2 * width], [1]
        self.head = Head(2 * width, residual=residual, zero_start=zero_start)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``image`` (B, slices, H, W) to the last feature map (B, 2 * width, H, W); there are no skips."""
        x = lowered(self.stem(image))
        outputs = [x]
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        skips: list[torch.Tensor] = []
        return self.bottleneck(torch.cat(outputs, dim=1)), skips

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units to (B, 1, H, W)."""
        features, _ = self.encode(image)
        return self.head(features, image)
