"""Local means, variances and covariances under a Gaussian window, and the map of structural similarity made from them."""

from __future__ import annotations

from typing import NamedTuple

import torch

WINDOW, SIGMA = 11, 1.5
"""Size and sigma of SSIM's Gaussian window, pixels."""
SSIM_BORDER = WINDOW // 2
"""Width in pixels of the border in which SSIM's window does not fit into the image."""


class Moments(NamedTuple):
    """Local moments of two images at every place where the window fits, each (B, 1, H - size + 1, W - size + 1)."""

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    variance_x: torch.Tensor
    variance_y: torch.Tensor
    covariance: torch.Tensor


def gaussian_window(size: int, sigma: float) -> torch.Tensor:
    """Weights (size,) of a Gaussian window, float32, with sum 1.

    >>> gaussian_window(3, 1e-3).tolist()
    [0.0, 1.0, 0.0]
    """
    weight = torch.signal.windows.gaussian(size, std=sigma, dtype=torch.float64)
    return (weight / weight.sum()).float()


def weighted_means(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Means under the separable window ``weights`` (size,), from (..., H, W) to (..., H - size + 1, W - size + 1).

    They are computed as sums of shifted images, several times as fast on a CPU as a convolution with one channel.

    Raises:
        ValueError: sides are below the window's size.
    """
    size = weights.numel()
    if min(images.shape[-2:]) < size:
        raise ValueError(f"Expected slices with sides of at least {size} pixels, but got {tuple(images.shape[-2:])}.")
    factors = [float(weight) for weight in weights]
    # One image at a time: it stays in the processor's cache.
    blurred = [_blurred(image, factors) for image in images.reshape(-1, *images.shape[-2:])]
    return torch.stack(blurred).reshape(*images.shape[:-2], *blurred[0].shape)


def _blurred(image: torch.Tensor, factors: list[float]) -> torch.Tensor:
    for axis in (0, 1):
        length = image.shape[axis] - len(factors) + 1
        total = image.narrow(axis, 0, length) * factors[0]
        for shift in range(1, len(factors)):
            total.add_(image.narrow(axis, shift, length), alpha=factors[shift])
        image = total
    return image


def local_moments(image: torch.Tensor, reference: torch.Tensor, weights: torch.Tensor) -> Moments:
    """Local moments of two images (B, 1, H, W) under ``weights`` (size,); variances are at least 0.

    Raises:
        ValueError: sides are below the window's size.
    """
    centre = reference.mean()  # E[x^2] - E[x]^2 must not cancel
    x, y = image - centre, reference - centre
    mean_x, mean_y, xx, yy, xy = weighted_means(torch.stack([x, y, x * x, y * y, x * y]), weights)
    return Moments(
        mean_x + centre,
        mean_y + centre,
        (xx - mean_x * mean_x).clamp_(min=0),
        (yy - mean_y * mean_y).clamp_(min=0),
        xy - mean_x * mean_y,
    )


def ssim_map(image: torch.Tensor, reference: torch.Tensor, *, data_range: float) -> torch.Tensor:
    """SSIM at each place, from two images (B, 1, H, W) to (B, 1, H - 10, W - 10).

    Raises:
        ValueError: sides are below 11.

    >>> ssim_map(torch.zeros(1, 1, 12, 11), torch.zeros(1, 1, 12, 11), data_range=1.0).shape
    torch.Size([1, 1, 2, 1])
    """
    m = local_moments(image, reference, gaussian_window(WINDOW, SIGMA).to(image))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * m.mean_x * m.mean_y + c1) / (m.mean_x**2 + m.mean_y**2 + c1)
    return luminance * (2 * m.covariance + c2) / (m.variance_x + m.variance_y + c2)
