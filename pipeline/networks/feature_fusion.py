"""Fusions that see more than two values per pixel: the branches' features, or an embedding of both estimates."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.blocks import RestormerBlock
from ct_cncl.pipeline.networks.ends import ImageConv2d, amplified
from ct_cncl.pipeline.networks.interaction import CrossAttentionBlock
from ct_cncl.pipeline.networks.scam import SCAM


class NoMixing(nn.Module):
    """Leaves both feature maps as they are."""

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``content`` and ``noise`` unchanged."""
        return content, noise


class JointRestormerBlock(nn.Module):
    """One ``RestormerBlock`` over the channels of both feature maps together.

    Args:
        content_channels: channels of the content branch's feature map.
        noise_channels: channels of the noise branch's feature map.
    """

    def __init__(self, content_channels: int, noise_channels: int) -> None:
        super().__init__()
        self.channels = [content_channels, noise_channels]
        self.block = RestormerBlock(content_channels + noise_channels)

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map ``content`` (B, C, H, W) and ``noise`` (B, K, H, W) to feature maps of the same shapes."""
        content, noise = self.block(torch.cat([content, noise], dim=1)).split(self.channels, dim=1)
        return content, noise


def mix_layer(name: str, content_channels: int, noise_channels: int) -> nn.Module:
    """Make the module before the convolution of a fusion, which maps a pair of feature maps to a pair of the same shapes.

    Args:
        name: "none", "scam" (along rows), "cross" (between channels) or "restormer".
        content_channels: channels of the content branch's feature map.
        noise_channels: channels of the noise branch's feature map.

    Raises:
        ValueError: the name is unknown.
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
    """Fuses both estimates, guided by the branches' last feature maps.

    With o = convolution(mix(features)) and D = y - N(y), a gated fusion is D + sigmoid(o) * (C(y) - D), which weighs the two
    estimates at each pixel; any other fusion is the average of both estimates plus o / gain. The convolution starts at zero,
    so that every fusion starts as the average.

    Args:
        content_channels: channels of the content branch's last feature map.
        noise_channels: channels of the noise branch's last feature map.
        scale: side in pixels of the block that each feature represents.
        mix: see ``mix_layer``.
        kernel_size: kernel size of the convolution, odd.
        gated: whether the fusion is gated, as above.
        gain: divides o in a fusion without a gate.

    Raises:
        ValueError: ``kernel_size`` is even or below 1, or ``mix`` is unknown.
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
        """The o above, (B, 1, H * scale, W * scale), for feature maps (B, channels, H, W)."""
        content_features, noise_features = self.mix(content_features, noise_features)
        return self.shuffle(self.convolution(torch.cat([content_features, noise_features], dim=1)))

    def forward(
        self,
        content_features: torch.Tensor,
        noise_features: torch.Tensor,
        content: torch.Tensor,
        denoised: torch.Tensor,
    ) -> torch.Tensor:
        """Fuse the estimates (B, 1, H, W), with feature maps (B, channels, H / scale, W / scale), to one image (B, 1, H, W)."""
        evidence = self.evidence(content_features, noise_features)
        if self.gated:
            return denoised + torch.sigmoid(evidence) * (content - denoised)
        return 0.5 * (content + denoised) + evidence / self.gain


class EmbeddedFusion(nn.Module):
    """``FeatureFusion`` of a small embedding of the two estimates, for branches whose features cannot be reached.

    Each estimate, with its difference from the other, is embedded by one 3x3 convolution and ReLU, the same for both.

    Args:
        width: channels of the embedding.
        mix: see ``mix_layer``.
        kernel_size: kernel size of the convolution after the mixing.
        gated: see ``FeatureFusion``.
        gain: the embedding sees ``gain * (estimate - LEVEL)``; see also ``FeatureFusion``.
    """

    def __init__(
        self, *, width: int = 16, mix: str = "none", kernel_size: int = 3, gated: bool = False, gain: float = 16.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.embedding = nn.Sequential(ImageConv2d(2, width, 3, padding=1), nn.ReLU(inplace=True))
        self.fusion = FeatureFusion(width, width, mix=mix, kernel_size=kernel_size, gated=gated, gain=gain)

    def embedded(self, estimate: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Embed an estimate (B, 1, H, W) and its difference from the other one to (B, width, H, W)."""
        return self.embedding(torch.cat([amplified(estimate, self.gain), self.gain * (estimate - other)], dim=1))

    def forward(self, content: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """Fuse ``content`` C(y) and ``denoised`` y - N(y), both (B, 1, H, W), to one image (B, 1, H, W)."""
        return self.fusion(self.embedded(content, denoised), self.embedded(denoised, content), content, denoised)
