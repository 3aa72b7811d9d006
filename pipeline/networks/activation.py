"""Activations, by name."""

from __future__ import annotations

import torch
from torch import nn


class SimpleGate(nn.Module):
    """The product of the two halves of the channels: a gated linear unit without a sigmoid (NAFNet, Chen et al., 2022, eq. 4).

    >>> SimpleGate()(torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)).flatten().tolist()
    [10.0, 21.0]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, 2C, H, W) to (B, C, H, W)."""
        first, second = x.chunk(2, dim=1)
        return first * second


def activation_layer(name: str) -> nn.Module:
    """Make an activation: "relu", "gelu" or "glu" (``SimpleGate``, which halves the channels, see ``widening``).

    Raises:
        ValueError: the name is unknown.
    """
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "gelu":
        return nn.GELU()
    if name == "glu":
        return SimpleGate()
    raise ValueError(f"Expected activation 'relu', 'gelu' or 'glu', but got {name!r}.")


def widening(name: str) -> int:
    """Number of input channels that activation ``name`` needs for each output channel."""
    return 2 if name == "glu" else 1
