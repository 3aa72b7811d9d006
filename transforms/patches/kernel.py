"""Other pixel sizes and reconstruction kernels for training pairs: both images of a pair are resampled and filtered alike.

Filtering and resampling are linear: noise in the image and in its target change together, so that their ratio and the
likeness of their spectra, on which the right share of noise depends, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Blur of one pixel's standard deviation, by which kernels are told apart."""


def check_range(name: str, bounds: Sequence[float], *, above: float) -> tuple[float, float]:
    """Lowest and highest value of a random choice.

    Raises:
        ValueError: not two ordered numbers above ``above``.
    """
    if len(bounds) != 2 or not above < bounds[0] <= bounds[1]:
        raise ValueError(f"Expected {name} to be two ordered numbers above {above:g}, but got {list(bounds)}.")
    return float(bounds[0]), float(bounds[1])


def resampled(images: torch.Tensor, side: int) -> torch.Tensor:
    """Square images with another pixel size, by cubic interpolation (Keys 1981); larger pixels average smaller ones.

    Args:
        images: (B, C, H, H), HU.
        side: pixels a side afterwards.

    Returns:
        (B, C, side, side), HU.
    """
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True)


def refiltered(images: torch.Tensor, sharpness: float | torch.Tensor) -> torch.Tensor:
    """Images as if of a softer or sharper reconstruction kernel; their mean level stays.

    The frequency response is ``1 + sharpness (1 - B(u) B(v))`` with the binomial blur's ``B(u) = cos^4(pi u)``, u in cycles a
    pixel: 1 at frequency 0, ``1 + sharpness`` at the highest.

    Args:
        images: (B, C, H, W), HU, mirrored at the borders.
        sharpness: above -1; 0 changes nothing. One for all, or (B, 1, 1, 1).

    Returns:
        (B, C, H, W), HU.
    """
    if isinstance(sharpness, float) and sharpness == 0:
        return images
    blurred = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    for axis in (-2, -1):
        # Sums in one order, not a convolution: what an image becomes must not depend on its batch.
        pixels = images.shape[axis]
        blurred = sum(weight * blurred.narrow(axis, tap, pixels) for tap, weight in enumerate(BINOMIAL))  # type: ignore[assignment]
    return images + sharpness * (images - blurred)
