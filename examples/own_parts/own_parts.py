"""A custom network, loss and augmentation. See docs/how-to/own_parts.md."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.transforms import MapTransform, Randomizable
from torch import nn


class EdgeNet(nn.Module):
    """A residual network of three layers whose output is the denoised slice.

    Args:
        width: channels of the hidden layers.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Denoise slices (batch, 1, height, width) in network units, (HU + 1024) / 4096; returns the same shape."""
        return image - self.layers(image)


class EdgeL1(nn.Module):
    """Mean absolute error of the image and of its gradients, so that edges count more.

    Args:
        edges: weight of the gradients.
    """

    def __init__(self, edges: float = 0.5) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of two images (batch, 1, height, width) in network units; a scalar."""
        error = prediction - target
        gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + self.edges * gradients


class RandShiftd(Randomizable, MapTransform):
    """Adds one random number of HU to image and label, because calibration differs from scanner to scanner.

    Args:
        keys: keys of the images to shift by the same amount.
        most_hu: largest shift in either direction, HU.
    """

    def __init__(self, keys: Sequence[str], most_hu: float = 5.0) -> None:
        super().__init__(keys)
        self.most_hu = most_hu

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Shift each image (channel, height, width) in network units, in which 1 is 4096 HU."""
        shift = float(self.R.uniform(-self.most_hu, self.most_hu)) / 4096
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = items[key] + shift
        return items
