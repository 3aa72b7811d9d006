"""A network, a loss and an augmentation of one's own. See docs/how-to/own_parts.md."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.transforms import MapTransform, Randomizable
from torch import nn


class EdgeNet(nn.Module):
    """A residual network of three layers: what it gives is the denoised slice.

    Args:
        width: channels within.
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
        """(batch, 1, height, width) in network units, (HU + 1024) / 4096, to the same."""
        return image - self.layers(image)


class EdgeL1(nn.Module):
    """Mean absolute error, and that of the gradients: edges count more.

    Args:
        edges: weight of the gradients.
    """

    def __init__(self, edges: float = 0.5) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Both (batch, 1, height, width) in network units; a number."""
        error = prediction - target
        gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + self.edges * gradients


class RandShiftd(Randomizable, MapTransform):
    """Adds one random number of HU to image and label: calibration differs from scanner to scanner.

    Args:
        keys: to be shifted alike.
        most_hu: HU at the most, either way.
    """

    def __init__(self, keys: Sequence[str], most_hu: float = 5.0) -> None:
        super().__init__(keys)
        self.most_hu = most_hu

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Each key (channel, height, width) in network units, of which 1 is 4096 HU."""
        shift = float(self.R.uniform(-self.most_hu, self.most_hu)) / 4096
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = items[key] + shift
        return items
