"""What CNCL predicts, for images of any size and one or more slices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Branches(NamedTuple):
    """What CNCL predicts for an image y; each (B, 1, H, W) in network units."""

    content: torch.Tensor
    """C(y), the content predictor's estimate of the normal-dose image."""
    noise: torch.Tensor
    """N(y), the noise predictor's estimate of the noise; y - N(y) is the other estimate of the image."""
    fused: torch.Tensor
    """F(C(y), y - N(y)), the result."""


def centre_slice(image: torch.Tensor) -> torch.Tensor:
    """The slice (B, 1, H, W) that an image (B, C, H, W) of C neighbouring slices is about, C odd.

    >>> centre_slice(torch.arange(3.0).view(1, 3, 1, 1)).item()
    1.0
    """
    centre = image.shape[1] // 2
    return image[:, centre : centre + 1]


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
        """``image`` (B, C, H, W) to the ``Branches`` of its centre slice.

        Raises:
            ValueError: a network with one output gives something else than (B, 1, H, W).
        """
        if hasattr(self.network, "branches"):
            return self.network.branches(image)  # type: ignore[operator]
        fused = self.network(image)
        _check_output(fused, image)
        return Branches(content=fused, noise=centre_slice(image) - fused, fused=fused)


def _check_output(output: object, image: torch.Tensor) -> None:
    """Refuse an output of another shape: losses would broadcast it against the image without a word."""
    wanted = (image.shape[0], 1, *image.shape[-2:])
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != wanted:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"Expected a network that gives {wanted} for images {tuple(image.shape)}, the denoised slice of each, but got {got}. Change what "
            "its forward returns (padding=1 keeps the size in a 3 x 3 convolution)."
        )
