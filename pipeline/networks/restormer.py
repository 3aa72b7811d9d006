"""Restormer (Zamir et al., CVPR 2022) as a predictor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ct_cncl.pipeline.networks.blocks import RestormerBlock
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d, lowered


class ConcatUp(nn.Module):
    """Upsampling by 2 with a pixel shuffle, concatenation with the skip, ``reduce``, then ``blocks``.

    Args:
        channels: channels of the skip; the input has twice as many.
        reduce: module that maps the concatenation to the channels of ``blocks``.
        blocks: module that maps a feature map to one of the same shape.
    """

    def __init__(self, channels: int, reduce: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(2 * channels, 4 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))
        self.reduce = reduce
        self.blocks = blocks

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, 2C, H, W) and ``skip`` (B, C, 2H, 2W) to (B, C or 2C, 2H, 2W)."""
        return self.blocks(self.reduce(torch.cat([self.expand(x), skip], dim=1)))


class Restormer(nn.Module):
    """U-shaped network of transposed-attention blocks.

    In the paper: width 48, blocks 4-6-6-8, heads 1-2-4-8, 4 refinement blocks; 26 million parameters. MONAI's Restormer has
    the same structure with instance normalisation, but needs einops and cannot be scripted.

    Args:
        width: channels of the first level; they double with each level down, and once more in the first level's decoder.
        blocks: number of blocks of each encoder level, the bottom last; the decoder has the same.
        heads: number of attention heads of each level; they must divide its channels.
        refinement_blocks: number of blocks before the head.
        norm: see ``norm_layer``; "layer" in the paper.
        expansion: hidden channels of the feed-forward networks for each channel.
        in_channels: slices of the input, odd.
        residual: add the input's centre slice to the output, as the paper does.
        zero_start: start with an output of zero (or of the input if ``residual``).

    Raises:
        ValueError: there are fewer than two levels, blocks and heads differ in number, ``width`` is odd, or heads do not divide
            the channels.
    """

    def __init__(
        self,
        *,
        width: int = 48,
        blocks: Sequence[int] = (1, 1, 1, 1),
        heads: Sequence[int] = (1, 1, 1, 1),
        refinement_blocks: int = 4,
        norm: str = "layer",
        expansion: float = 2.66,
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        depth = len(blocks) - 1
        if depth < 1 or len(heads) != len(blocks):
            raise ValueError(
                f"Expected blocks and heads for the same two or more levels, but got {blocks} and {heads}."
            )
        if width < 2 or width % 2:
            raise ValueError(f"Expected an even width of at least 2, but got {width}.")
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]

        def stack(count: int, channels: int, level: int) -> nn.Sequential:
            return nn.Sequential(
                *(RestormerBlock(channels, heads=heads[level], norm=norm, expansion=expansion) for _ in range(count))
            )

        self.stem = ImageConv2d(in_channels, width, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(stack(blocks[level], widths[level], level) for level in range(depth))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
            for channels in widths[:-1]
        )
        self.middle = stack(blocks[depth], widths[depth], depth)
        # The first level keeps all channels of its concatenation.
        self.channels = [*widths[-2:0:-1], 2 * width]
        self.scales = [2**level for level in reversed(range(depth))]
        self.up = nn.ModuleList()
        for level in reversed(range(depth)):
            channels = widths[level]
            reduce = nn.Conv2d(2 * channels, channels, 1, bias=False) if level > 0 else nn.Identity()
            count = blocks[level] if level > 0 else blocks[0] + refinement_blocks
            self.up.append(ConcatUp(channels, reduce, stack(count, channels if level > 0 else 2 * channels, level)))
        self.head = Head(2 * width, residual=residual, zero_start=zero_start)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``image`` (B, slices, H, W) to the lowest feature map and the skips, first level first."""
        x = lowered(self.stem(image))
        skips: list[torch.Tensor] = []
        for blocks, down in zip(self.encoder, self.down):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        return self.middle(x), skips

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units, sides multiples of ``multiple``, to (B, 1, H, W)."""
        x, skips = self.encode(image)
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x, image)
