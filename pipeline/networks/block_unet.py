"""U-shaped network of residual blocks: NAFNet, and lighter variants that work on pixel-unshuffled images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ct_cncl.pipeline.networks.blocks import NAFBlock, ResidualBlock
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d, amplified, lowered


def block_sequence(kind: str, count: int, channels: int, *, norm: str | None, activation: str) -> nn.Sequential:
    """Make ``count`` blocks of one kind, "naf" or "residual".

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "naf":
        return nn.Sequential(*(NAFBlock(channels, norm=norm or "layer") for _ in range(count)))
    if kind == "residual":
        return nn.Sequential(
            *(ResidualBlock(channels, norm=norm or "none", activation=activation) for _ in range(count))
        )
    raise ValueError(f"Expected block 'naf' or 'residual', but got {kind!r}.")


class SkipUp(nn.Module):
    """Upsampling by 2 with half the channels, addition of the skip, then ``blocks``.

    Args:
        channels: channels of the output.
        blocks: module that maps a feature map to one of the same shape.
    """

    def __init__(self, channels: int, blocks: nn.Module) -> None:
        super().__init__()
        # This transposed convolution is equivalent to a 1x1 convolution and a pixel shuffle.
        self.expand = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
        self.blocks = blocks

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, 2C, H, W) and ``skip`` (B, C, 2H, 2W) to (B, C, 2H, 2W)."""
        return self.blocks(self.expand(x) + skip)


class BlockDecoder(nn.Module):
    """The decoder and the head of ``BlockUNet``: a branch for ``InteractingCNCL`` that shares the other branch's encoder.

    Args:
        width: channels of the first level; each level down has twice as many.
        decoder_blocks: number of blocks of each level in the order in which they run, the first level last.
        block: "naf" or "residual".
        norm: normalisation of the blocks, see ``norm_layer``; None is "layer" for "naf" and "none" for "residual".
        activation: activation of residual blocks, see ``activation_layer``.
        unshuffle: side in pixels of the block that each feature of the first level represents.
        residual: add the input's centre slice to the output.
        zero_start: start with an output of zero (or of the input if ``residual``).
        gain: the output of the last convolution is divided by it.

    Raises:
        ValueError: there is no level; ``width``, ``unshuffle`` or ``gain`` is not positive; or a name is unknown.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        decoder_blocks: Sequence[int] = (1, 1, 1),
        block: str = "naf",
        norm: str | None = None,
        activation: str = "relu",
        unshuffle: int = 1,
        residual: bool = False,
        zero_start: bool = False,
        gain: float = 16.0,
    ) -> None:
        super().__init__()
        depth = len(decoder_blocks)
        if min(width, unshuffle, depth) < 1 or gain <= 0:
            raise ValueError(
                f"Expected positive width, unshuffle and gain and at least one level, but got {width}, {unshuffle}, {gain} "
                f"and {depth}."
            )
        self.multiple = unshuffle * 2**depth
        self.channels = [width * 2**level for level in reversed(range(depth))]
        self.scales = [unshuffle * 2**level for level in reversed(range(depth))]
        self.up = nn.ModuleList(
            SkipUp(channels, block_sequence(block, count, channels, norm=norm, activation=activation))
            for count, channels in zip(decoder_blocks, self.channels)
        )
        self.head = Head(width, scale=unshuffle, residual=residual, zero_start=zero_start, gain=gain)

    def decode(self, x: torch.Tensor, skips: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Map the lowest feature map and the skips of ``image`` (B, slices, H, W) to (B, 1, H, W) in network units."""
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x, image)


class BlockUNet(BlockDecoder):
    """A U-shaped network of blocks, with strided 2x2 convolutions on the way down and additive skips.

    With ``block="naf"`` and ``unshuffle=1`` it is NAFNet (Chen et al., ECCV 2022; there: width 32, and either encoder
    1-1-1-28, middle 1, decoder 1-1-1-1, or encoder 2-2-4-8, middle 12, decoder 2-2-2-2). With ``unshuffle=2`` or 4, each
    feature represents 2x2 or 4x4 pixels, which saves most of the time on a CPU.

    Args:
        width: see ``BlockDecoder``.
        encoder_blocks: number of blocks of each level on the way down, first level first.
        middle_blocks: number of blocks at the lowest level.
        decoder_blocks: see ``BlockDecoder``.
        block: "naf" or "residual".
        norm: see ``BlockDecoder``.
        activation: see ``BlockDecoder``.
        unshuffle: see ``BlockDecoder``.
        in_channels: slices of the input, odd.
        residual: add the input's centre slice to the output.
        zero_start: start with an output of zero (or of the input if ``residual``).
        gain: the network sees ``gain * (image - LEVEL)``, and the output of its last convolution is divided by ``gain``.

    Raises:
        ValueError: encoder and decoder differ in depth; see also ``BlockDecoder``.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1),
        block: str = "naf",
        norm: str | None = None,
        activation: str = "relu",
        unshuffle: int = 1,
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
        gain: float = 16.0,
    ) -> None:
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"Expected equally many encoder and decoder levels, but got {len(encoder_blocks)} and {len(decoder_blocks)}."
            )
        super().__init__(
            width=width,
            decoder_blocks=decoder_blocks,
            block=block,
            norm=norm,
            activation=activation,
            unshuffle=unshuffle,
            residual=residual,
            zero_start=zero_start,
            gain=gain,
        )
        self.gain = gain
        widths = self.channels[::-1]

        def blocks(count: int, channels: int) -> nn.Sequential:
            return block_sequence(block, count, channels, norm=norm, activation=activation)

        self.unshuffle = nn.PixelUnshuffle(unshuffle) if unshuffle > 1 else nn.Identity()
        self.stem = ImageConv2d(in_channels * unshuffle**2, width, 3, padding=1)
        self.encoder = nn.ModuleList(blocks(count, channels) for count, channels in zip(encoder_blocks, widths))
        self.down = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 2, stride=2) for channels in widths)
        self.middle = blocks(middle_blocks, 2 * widths[-1])

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``image`` (B, slices, H, W) to the lowest feature map and the skips, first level first."""
        # Convolutions are faster in this memory format on a CPU, and keep it.
        x = self.unshuffle(amplified(image, self.gain)).contiguous(memory_format=torch.channels_last)
        x = lowered(self.stem(x))
        skips: list[torch.Tensor] = []
        for blocks, down in zip(self.encoder, self.down):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        return self.middle(x), skips

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units, sides multiples of ``multiple``, to (B, 1, H, W)."""
        x, skips = self.encode(image)
        return self.decode(x, skips, image)
