"""CNCL: content and noise predicted side by side, then fused (Geng et al., IEEE TMI 41(2), 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.initialise import initialise_gaussian


class Branches(NamedTuple):
    """What CNCL predicts for an image y; each (B, 1, H, W) in network units."""

    content: torch.Tensor
    """C(y), the content predictor's estimate of the normal-dose image."""
    noise: torch.Tensor
    """N(y), the noise predictor's estimate of the noise; y - N(y) is the other estimate of the image."""
    fused: torch.Tensor
    """F(C(y), y - N(y)), the result."""


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad the last two sides at their ends to multiples of ``multiple``.

    Reflects where the image is large enough and repeats the edge where it is not, so that no artificial border of
    zeros (-1024 HU) reaches the network.

    Args:
        image: (B, C, H, W).
        multiple: what both sides shall be divisible by.

    Returns:
        (B, C, H', W'); ``[..., :H, :W]`` is the input.
    """
    height, width = image.shape[-2:]
    bottom, right = (-height) % multiple, (-width) % multiple
    if bottom == 0 and right == 0:
        return image
    mode = "reflect" if bottom < height and right < width else "replicate"
    return functional.pad(image, [0, right, 0, bottom], mode=mode)


class CNCL(nn.Module):
    """Content-noise complementary learning: two predictors, one fusion, one image in and one image out.

    Args:
        content: predictor of the content, (B, 1, H, W) to (B, 1, H, W). Its attribute ``multiple``, where it has one,
            says what the sides of its input must be divisible by.
        noise: predictor of the noise, likewise.
        fusion: module called as ``fusion(content, y - noise)``.
        init_std: where given, both predictors start from N(0, init_std) weights (the paper: 0.02); the fusion keeps
            its own start.
    """

    def __init__(
        self, *, content: nn.Module, noise: nn.Module, fusion: nn.Module, init_std: float | None = None
    ) -> None:
        super().__init__()
        if init_std is not None:
            initialise_gaussian(content, std=init_std)
            initialise_gaussian(noise, std=init_std)
        self.content = content
        self.noise = noise
        self.fusion = fusion
        self.multiple = max(int(getattr(content, "multiple", 1)), int(getattr(noise, "multiple", 1)))

    @torch.jit.export
    def branches(self, image: torch.Tensor) -> Branches:
        """Content, noise and fused image of ``image`` (B, 1, H, W), in network units, any H and W."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.multiple)
        content = self.content(padded)
        noise = self.noise(padded)
        fused = self.fusion(content, padded - noise)
        return Branches(content[..., :height, :width], noise[..., :height, :width], fused[..., :height, :width])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The fused image of ``image`` (B, 1, H, W), in network units, any H and W."""
        return self.branches(image).fused


class BranchOutputs(nn.Module):
    """The same network, seen as a module whose ``forward`` returns all branches.

    DistributedDataParallel hooks ``forward`` only; training and reports need more than the fused image. The state dict
    that is saved is the network's own, never this wrapper's.

    Args:
        network: a ``CNCL``, or a network with one output, which then counts as content and fused at once.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Branches:
        """``image`` (B, 1, H, W) to its ``Branches``."""
        if isinstance(self.network, CNCL):
            return self.network.branches(image)
        fused = self.network(image)
        return Branches(content=fused, noise=image - fused, fused=fused)
