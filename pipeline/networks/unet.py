"""The U-Net that CNCL uses for each branch (Geng et al., IEEE TMI 41(2), 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def _norm(name: str, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"Expected norm 'batch', 'instance' or 'none', but got {name!r}.")


class ConvPair(nn.Sequential):
    """Two 3x3 convolutions, each followed by a normalisation and ReLU.

    Args:
        in_channels: channels of the input.
        mid_channels: channels between the two convolutions.
        out_channels: channels of the output.
        norm: "batch", "instance" or "none".
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, *, norm: str) -> None:
        bias = norm == "none"  # a normalisation subtracts the mean: a bias before it would do nothing
        super().__init__(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1, bias=bias),
            _norm(norm, mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=bias),
            _norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Module):
    """Bilinear upsampling by 2, concatenation with the skip, then ``convolutions``."""

    def __init__(self, convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``x`` (B, C, H, W) and ``skip`` (B, C, 2H, 2W) to (B, C', 2H, 2W)."""
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.convolutions(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """U-Net predictor, one image to one image.

    With ``width=64, depth=4`` this is the paper's: down 1-64-64, 64-128-128, 128-256-256, 256-512-512, bottom
    512-1024-512, max pooling between; up 1024-512-256, 512-256-128, 256-128-64, 128-32-1, the last pair without
    normalisation and ReLU. Two of them have 43.8 M parameters and take 290 GMAC for a 512 x 512 slice.

    Args:
        width: channels of the first level; each level down has twice as many.
        depth: number of poolings; input sides must be multiples of ``2 ** depth`` (``CNCL`` pads for that).
        norm: "batch" (the paper's), "instance" or "none".
        in_channels: channels of the input.
        residual: add the input's first channel to the output, as a content predictor may: it then learns what to change.
            Not the paper's, which predicts the content from nothing and needs many epochs to get its level right.
        zero_start: start with an output of zero (of the input where ``residual``), so that training begins at the input's
            quality. Takes effect where ``CNCL`` draws no initial weights of its own (``init_std`` null).

    Raises:
        ValueError: width below 2 or odd, depth below 1, unknown norm.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 4,
        norm: str = "batch",
        in_channels: int = 1,
        residual: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        if width < 2 or width % 2:
            raise ValueError(f"Expected an even width of at least 2, but got {width}.")
        if depth < 1:
            raise ValueError(f"Expected a depth of at least 1, but got {depth}.")
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ConvPair(before, after, after, norm=norm) for before, after in zip([in_channels, *widths], widths[:-1])
        )
        # Every way up halves the channels at its end, so that the concatenation with the skip doubles them again.
        self.bottom = ConvPair(widths[-2], widths[-1], widths[-2], norm=norm)
        self.up = nn.ModuleList(
            UpBlock(ConvPair(2 * channels, channels, channels // 2, norm=norm)) for channels in widths[-2:0:-1]
        )
        head = nn.Sequential(nn.Conv2d(2 * width, width // 2, 3, padding=1), nn.Conv2d(width // 2, 1, 3, padding=1))
        self.up.append(UpBlock(head))
        if zero_start:
            nn.init.zeros_(head[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(head[-1].bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``image`` (B, C, H, W) in network units, sides multiples of ``2 ** depth``, to (B, 1, H, W)."""
        skips: list[torch.Tensor] = []
        x = image
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up in self.up:
            x = up(x, skips.pop())
        if self.residual:
            x = x + image[:, :1]
        return x
