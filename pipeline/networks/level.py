"""Keep the low frequencies of the input, so that tissues keep their level and faint lesions most of their contrast."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def keep_level(image: torch.Tensor, result: torch.Tensor, sigma: float) -> torch.Tensor:
    """Give ``result`` the low frequencies of ``image``: image - (D - G * D), where D = image - result.

    Noise after a ramp filter has almost no power at low frequencies, so what a network removes there is anatomy or, with
    photon starvation, dark bands; both stay in the image. G is a Gaussian; the image is mirrored at its borders
    (half-sample symmetric). Padding does not enter the blur and comes back unchanged; the mean of what is removed from
    all other pixels is zero.

    Only additions are used, which mixed precision leaves in float32, also in TorchScript.

    Args:
        image: (B, 1, H, W), network units, float32.
        result: the network's result for it, (B, 1, H, W), float32 or the type of mixed precision.
        sigma: standard deviation of G, pixels, above 0.

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
    """1 where ``image`` (B, 1, H, W), network units, is not padding, 0 where it is; same shape, float32.

    Padding is where a square of 5 x 5 pixels is at or below -1024 HU; smaller groups are noisy air.
    """
    floor = (image <= 0.0) * 1.0
    eroded = -functional.max_pool2d(-floor, 5, stride=1, padding=2)
    return 1.0 - functional.max_pool2d(eroded, 5, stride=1, padding=2)


def low_pass(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Convolve ``image`` (B, C, H, W) with a Gaussian of ``sigma`` pixels, cut off at 3 sigma, with half-sample symmetric borders.

    The mean stays the same, since the kernel is symmetric and the image is mirrored at its borders.

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
        if lead < reach:  # true once, unless the image is smaller than the filter
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
