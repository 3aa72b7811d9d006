"""The outputs of CNCL, for images of any size with one or more slices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Branches(NamedTuple):
    """The outputs of CNCL for an image y, each (B, 1, H, W) in network units."""

    content: torch.Tensor
    """C(y), the content predictor's estimate of the noise-free image."""
    noise: torch.Tensor
    """N(y), the noise predictor's estimate of the noise; y - N(y) is the other estimate of the image."""
    fused: torch.Tensor
    """F(C(y), y - N(y)), the result."""


def centre_slice(image: torch.Tensor) -> torch.Tensor:
    """The centre slice (B, 1, H, W) of an image (B, C, H, W) of C neighbouring slices, C odd.

    >>> centre_slice(torch.arange(3.0).view(1, 3, 1, 1)).item()
    1.0
    """
    centre = image.shape[1] // 2
    return image[:, centre : centre + 1]


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad the last two axes at their ends to multiples of ``multiple``.

    The image is reflected, or its edge repeated if it is too small for that, so that no artificial border of zeros (-1024 HU)
    reaches the network.

    Args:
        image: (B, C, H, W).
        multiple: number by which both sides must become divisible.

    Returns:
        (B, C, H', W'), of which ``[..., :H, :W]`` is the input.
    """
    height, width = image.shape[-2:]
    bottom, right = (-height) % multiple, (-width) % multiple
    if bottom == 0 and right == 0:
        return image
    mode = "reflect" if bottom < height and right < width else "replicate"
    return functional.pad(image, [0, right, 0, bottom], mode=mode)


class BranchOutputs(nn.Module):
    """A wrapper whose ``forward`` returns all outputs of a network.

    DistributedDataParallel hooks only into ``forward``, but training and reports need more than the fused image. The saved
    state dict is always the network's own, never this wrapper's.

    Args:
        network: a ``CNCL``, or a network with one output, which then counts both as the content and as the fused image.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Branches:
        """Map ``image`` (B, C, H, W) to the ``Branches`` of its centre slice.

        Raises:
            ValueError: a network with one output returns something other than (B, 1, H, W).
        """
        if hasattr(self.network, "branches"):
            return self.network.branches(image)  # type: ignore[operator]
        fused = self.network(image)
        _check_output(fused, image)
        return Branches(content=fused, noise=centre_slice(image) - fused, fused=fused)


def _check_output(output: object, image: torch.Tensor) -> None:
    """Refuse an output of another shape, which losses would silently broadcast against the image."""
    wanted = (image.shape[0], 1, *image.shape[-2:])
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != wanted:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"Expected a network that returns {wanted}, one denoised slice each, for images {tuple(image.shape)}, but got {got}. Change "
            "what its forward returns (padding=1 keeps the size in a 3 x 3 convolution)."
        )
