"""The U-Net that CNCL uses for each branch (Geng et al., IEEE TMI 41(2), 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.activation import activation_layer, widening
from ct_cncl.pipeline.networks.channel_attention import channel_attention_layer
from ct_cncl.pipeline.networks.ends import Head, ImageConv2d
from ct_cncl.pipeline.networks.normalisation import norm_layer


class ConvPair(nn.Sequential):
    """Two 3x3 convolutions, each followed by a normalisation and an activation; channel attention at the end.

    Args:
        in_channels: channels of the input.
        mid_channels: channels between the two convolutions.
        out_channels: channels of the output.
        norm: see ``norm_layer``.
        activation: see ``activation_layer``.
        attention: see ``channel_attention_layer``.
        of_image: whether the input is the image rather than a feature map, see ``ImageConv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        norm: str,
        activation: str = "relu",
        attention: str = "none",
        of_image: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        first = ImageConv2d if of_image else nn.Conv2d
        for convolution, before, after in (
            (first, in_channels, mid_channels),
            (nn.Conv2d, mid_channels, out_channels),
        ):
            wide = widening(activation) * after
            # Normalisation subtracts the mean, so a bias before it would have no effect.
            layers += [convolution(before, wide, 3, padding=1, bias=norm == "none"), norm_layer(norm, wide)]
            layers += [activation_layer(activation)]
        if attention != "none":
            layers += [channel_attention_layer(attention, out_channels)]
        super().__init__(*layers)


class UpBlock(nn.Module):
    """Bilinear upsampling by 2, concatenation with the skip, then ``convolutions``."""

    def __init__(self, convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) and ``skip`` (B, C, 2H, 2W) to (B, C', 2H, 2W)."""
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.convolutions(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """U-Net predictor, from one image to one image.

    With ``width=64, depth=4`` this is the paper's: down 1-64-64, 64-128-128, 128-256-256, 256-512-512, bottom
    512-1024-512, with max pooling in between; up 1024-512-256, 512-256-128, 256-128-64, 128-32-1, the last pair without
    normalisation and ReLU. Two of them have 43.8 M parameters and take 290 GMAC for a 512 x 512 slice.

    Args:
        width: channels of the first level; each level down has twice as many.
        depth: number of poolings; input sides must be multiples of ``2 ** depth`` (``CNCL`` pads for that).
        norm: "batch" (the paper's), "layer", "instance" or "none", see ``norm_layer``.
        activation: "relu" (the paper's), "gelu" or "glu", see ``activation_layer``.
        attention: channel attention after each pair, "none" (the paper's), "ca" or "sca", see ``channel_attention_layer``.
        in_channels: slices of the input, odd.
        residual: add the input's centre slice to the output, so that a content predictor learns only what to change. The
            paper does not: it predicts the whole content, and needs many epochs to get its level right.
        zero_start: start with an output of zero (or of the input if ``residual``), so that training begins at the input's
            quality. It has no effect if ``CNCL`` draws the initial weights (``init_std``).

    Raises:
        ValueError: ``width`` is odd or below 2, ``depth`` is below 1, or ``norm``, ``activation`` or ``attention`` is unknown.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 4,
        norm: str = "batch",
        activation: str = "relu",
        attention: str = "none",
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"Expected an even width of at least 2, but got {width}.")
        if depth < 1:
            raise ValueError(f"Expected a depth of at least 1, but got {depth}.")
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]

        def pair(before: int, between: int, after: int, *, of_image: bool = False) -> ConvPair:
            return ConvPair(
                before, between, after, norm=norm, activation=activation, attention=attention, of_image=of_image
            )

        self.down = nn.ModuleList([pair(in_channels, width, width, of_image=True)])
        self.down.extend(pair(channels, 2 * channels, 2 * channels) for channels in widths[:-2])
        # Every level on the way up halves the channels at its end; the concatenation with the skip doubles them again.
        self.bottom = pair(widths[-2], widths[-1], widths[-2])
        self.up = nn.ModuleList(UpBlock(pair(2 * channels, channels, channels // 2)) for channels in widths[-2:0:-1])
        self.up.append(UpBlock(nn.Conv2d(2 * width, width // 2, 3, padding=1)))
        self.channels = [channels // 2 for channels in widths[-2::-1]]
        self.scales = [2**level for level in reversed(range(depth))]
        self.head = Head(width // 2, residual=residual, zero_start=zero_start)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``image`` (B, slices, H, W) to the lowest feature map and the skips, first level first."""
        skips: list[torch.Tensor] = []
        x = image
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        return self.bottom(x), skips

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units, sides multiples of ``2 ** depth``, to (B, 1, H, W)."""
        x, skips = self.encode(image)
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x, image)
