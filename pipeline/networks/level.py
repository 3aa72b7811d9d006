"""The removed image without low frequencies: what keeps the level of tissues, and most of a faint lesion's contrast."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def keep_level(image: torch.Tensor, result: torch.Tensor, sigma: float) -> torch.Tensor:
    """``result`` with the low frequencies of ``image``: image - (D - G * D), where D = image - result.

    The noise of a ramp filter has next to nothing at low frequencies: what a network removes there is anatomy, or bands of
    photon starvation, which stay. G is a Gaussian that sees the image mirrored at its borders (half-sample symmetric) and
    no padding, whose pixels come back as they are; the mean of what is removed from all others is zero.

    Additions only, which mixed precision leaves in float32, in TorchScript too.

    Args:
        image: (B, 1, H, W), network units, float32.
        result: of the network, likewise, or in the type of mixed precision.
        sigma: of G, pixels, above 0.

    Returns:
        (B, 1, H, W), float32.
    """
    inside = inside_of_padding(image)
    removed = (image - result) * inside
    low = low_pass(removed, sigma) / low_pass(inside, sigma).clamp(min=1e-6)
    removed = (removed - low) * inside
    mean = removed.sum(dim=(-2, -1), keepdim=True) / inside.sum(dim=(-2, -1), keepdim=True).clamp(min=1.0)
    return image - (removed - mean) * inside


def inside_of_padding(image: torch.Tensor) -> torch.Tensor:
    """1 where ``image`` (B, 1, H, W), network units, is no padding, else 0; same shape, float32.

    Padding is where 5 x 5 pixels at the floor of -1024 HU lie together; fewer are air with noise.
    """
    floor = (image <= 0.0) * 1.0
    eroded = -functional.max_pool2d(-floor, 5, stride=1, padding=2)
    return 1.0 - functional.max_pool2d(eroded, 5, stride=1, padding=2)


def low_pass(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """``image`` (B, C, H, W) convolved with a Gaussian of ``sigma`` pixels, cut off at 3 sigma, borders half-sample symmetric.

    The mean stays: a symmetric kernel on an image that is mirrored so gives as much as it takes.

    >>> round(float(low_pass(torch.tensor([[[[0.0, 0.0, 3.0]]]]), 1.0).mean()), 5)
    1.0
    """
    return _along_rows(_along_rows(image, sigma).transpose(-1, -2), sigma).transpose(-1, -2)


def _along_rows(image: torch.Tensor, sigma: float) -> torch.Tensor:
    length = image.shape[-1]
    reach = int(3.0 * sigma + 0.999)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    total = 2.0 * sum(weights) - weights[0]
    mirrored = image
    lead = 0
    for _ in range(reach):
        if lead < reach:  # once, unless the image is smaller than the filter
            step = min(reach - lead, mirrored.shape[-1])
            left, right = mirrored[..., :step].flip(-1), mirrored[..., mirrored.shape[-1] - step :].flip(-1)
            mirrored = torch.cat([left, mirrored, right], dim=-1)
            lead += step
    smooth = image * (weights[0] / total)
    for k in range(reach):
        before, after = reach - 1 - k, reach + 1 + k
        pair = mirrored[..., before : before + length] + mirrored[..., after : after + length]
        smooth = torch.add(smooth, pair, alpha=weights[k + 1] / total)
    return smooth
