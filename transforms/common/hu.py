"""Exact conversion between HU and network units, and the named display windows of metrics and pictures.

Network units are ``(HU + 1024) / 4096``: the full 12-bit range has length 1, so ``data_range=1.0`` in network units is 4096 HU.
4096 is a power of two, so in float32 the round trip is exact for whole HU far beyond what a scanner stores.
Nothing is clipped: HU below -1024 or above 3071 are converted like all others.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch

HU_OFFSET = 1024.0
"""Added to HU before the division, so that -1024 HU is 0 in network units."""
HU_RANGE = 4096.0
"""The span in HU that has length 1.0 in network units; the data range of every full-range figure."""

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, torch.Tensor)


class Window(NamedTuple):
    """A display window in HU: grey levels run from ``centre - width / 2`` (black) to ``centre + width / 2`` (white)."""

    centre: float
    width: float

    @property
    def low(self) -> float:
        """The HU shown as black."""
        return self.centre - self.width / 2

    @property
    def high(self) -> float:
        """The HU shown as white."""
        return self.centre + self.width / 2

    def __str__(self) -> str:
        return f"{self.centre:g}/{self.width:g} HU"


WINDOWS = {
    "full": Window(1024.0, 4096.0),
    "chest": Window(-600.0, 1500.0),
    "abdomen": Window(50.0, 400.0),
    "head": Window(40.0, 80.0),
    "bone": Window(400.0, 1800.0),
}
"""Windows by name (centre, width in HU), as the field reports them."""


def to_network(hu: ArrayOrTensor) -> ArrayOrTensor:
    """Convert HU to network units, ``(HU + 1024) / 4096``.

    Args:
        hu: any shape, floating point, HU.

    Returns:
        The same shape and type; 0 is -1024 HU, 1 is 3072 HU.

    >>> float(to_network(torch.tensor(1024.0)))
    0.5
    """
    return (hu + HU_OFFSET) / HU_RANGE


def to_hu(units: ArrayOrTensor) -> ArrayOrTensor:
    """Convert network units to HU, the inverse of :func:`to_network`; nothing is clipped.

    Args:
        units: any shape, floating point, network units.

    Returns:
        HU, the same shape and type.

    >>> float(to_hu(to_network(torch.tensor(-2000.0))))
    -2000.0
    """
    return units * HU_RANGE - HU_OFFSET


def apply_window(hu: ArrayOrTensor, window: Window) -> ArrayOrTensor:
    """Map HU to grey levels in [0, 1] with a display window: linear, clipped at both ends.

    Args:
        hu: any shape, floating point, HU.
        window: centre and width in HU.

    Returns:
        Grey levels, the same shape and type; 0 is black, 1 is white.

    >>> float(apply_window(torch.tensor(50.0), WINDOWS["abdomen"]))
    0.5
    """
    return ((hu - window.low) / window.width).clip(0.0, 1.0)
