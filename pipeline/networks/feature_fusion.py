"""Fusions that see more than two numbers a pixel: the branches' features, or an embedding of both estimates."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.blocks import RestormerBlock
from ct_cncl.pipeline.networks.ends import ImageConv2d, amplified
from ct_cncl.pipeline.networks.interaction import CrossAttentionBlock
from ct_cncl.pipeline.networks.scam import SCAM


class NoMixing(nn.Module):
    """Both feature maps as they are."""

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``content`` and ``noise``."""
        return content, noise


class JointRestormerBlock(nn.Module):
    """One ``RestormerBlock`` over the channels of both feature maps together.

    Args:
        content_channels: of content's feature map.
        noise_channels: of noise's.
    """

    def __init__(self, content_channels: int, noise_channels: int) -> None:
        super().__init__()
        self.channels = [content_channels, noise_channels]
        self.block = RestormerBlock(content_channels + noise_channels)

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``content`` (B, C, H, W) and ``noise`` (B, K, H, W), same shapes out."""
        content, noise = self.block(torch.cat([content, noise], dim=1)).split(self.channels, dim=1)
        return content, noise


def mix_layer(name: str, content_channels: int, noise_channels: int) -> nn.Module:
    """What stands before the convolution of a fusion, a pair of feature maps in and out.

    Args:
        name: "none", "scam" (along rows), "cross" (between channels) or "restormer".
        content_channels: of content's feature map.
        noise_channels: of noise's.

    Raises:
        ValueError: another name.
    """
    if name == "none":
        return NoMixing()
    if name == "scam":
        return SCAM(content_channels, noise_channels)
    if name == "cross":
        return CrossAttentionBlock(content_channels, noise_channels)
    if name == "restormer":
        return JointRestormerBlock(content_channels, noise_channels)
    raise ValueError(f"Expected mix 'none', 'scam', 'cross' or 'restormer', but got {name!r}.")


class FeatureFusion(nn.Module):
    """Fuses both estimates by what the branches' last feature maps say.

    With o = convolution(mix(features)): a gated fusion is D + sigmoid(o) * (C(y) - D), where D = y - N(y), and picks at each
    pixel whom to believe; any other is the average of both estimates plus o. The convolution starts at zero, so that
    every fusion starts as the average.

    Args:
        content_channels: of content's last feature map.
        noise_channels: of noise's.
        scale: pixels that a feature stands for, along each side.
        mix: see ``mix_layer``.
        kernel_size: of the convolution, odd.
        gated: as above.
        gain: an output that is no gate is divided by it.

    Raises:
        ValueError: an even kernel, an unknown mix.
    """

    def __init__(
        self,
        content_channels: int,
        noise_channels: int,
        *,
        scale: int = 1,
        mix: str = "none",
        kernel_size: int = 1,
        gated: bool = False,
        gain: float = 16.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"Expected an odd kernel_size of at least 1, but got {kernel_size}.")
        self.gated = gated
        self.gain = gain
        self.mix = mix_layer(mix, content_channels, noise_channels)
        self.convolution = nn.Conv2d(
            content_channels + noise_channels, scale * scale, kernel_size, padding=kernel_size // 2
        )
        self.shuffle = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def evidence(self, content_features: torch.Tensor, noise_features: torch.Tensor) -> torch.Tensor:
        """o, (B, 1, H * scale, W * scale), of feature maps (B, channels, H, W)."""
        content_features, noise_features = self.mix(content_features, noise_features)
        return self.shuffle(self.convolution(torch.cat([content_features, noise_features], dim=1)))

    def forward(
        self,
        content_features: torch.Tensor,
        noise_features: torch.Tensor,
        content: torch.Tensor,
        denoised: torch.Tensor,
    ) -> torch.Tensor:
        """Feature maps (B, channels, H / scale, W / scale) and estimates (B, 1, H, W) to the fused image (B, 1, H, W)."""
        evidence = self.evidence(content_features, noise_features)
        if self.gated:
            return denoised + torch.sigmoid(evidence) * (content - denoised)
        return 0.5 * (content + denoised) + evidence / self.gain


class EmbeddedFusion(nn.Module):
    """``FeatureFusion`` of a small embedding of the two estimates, for branches that share images only.

    Each estimate and its difference from the other are embedded by one 3x3 convolution and ReLU, the same for both.

    Args:
        width: channels of the embedding.
        mix: see ``mix_layer``.
        kernel_size: of the convolution after it.
        gated: see ``FeatureFusion``.
        gain: estimates enter as ``gain * (estimate - LEVEL)``.
    """

    def __init__(
        self, *, width: int = 16, mix: str = "none", kernel_size: int = 3, gated: bool = False, gain: float = 16.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.embedding = nn.Sequential(ImageConv2d(2, width, 3, padding=1), nn.ReLU(inplace=True))
        self.fusion = FeatureFusion(width, width, mix=mix, kernel_size=kernel_size, gated=gated, gain=gain)

    def embedded(self, estimate: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) of two estimates (B, 1, H, W)."""
        return self.embedding(torch.cat([amplified(estimate, self.gain), self.gain * (estimate - other)], dim=1))

    def forward(self, content: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """``content`` C(y) and ``denoised`` y - N(y), both (B, 1, H, W), to the fused image (B, 1, H, W)."""
        return self.fusion(self.embedded(content, denoised), self.embedded(denoised, content), content, denoised)
