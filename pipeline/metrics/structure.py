"""Structure in the removed noise: the correlation of N(y) with the edges of the reference."""

from __future__ import annotations

import torch
from monai.handlers import IgniteMetricHandler
from monai.networks.layers import gaussian_1d
from torch.nn.functional import avg_pool2d, pad

from ct_cncl.pipeline.metrics.image_quality import SliceMetric, quality_metrics
from ct_cncl.pipeline.metrics.local_moments import weighted_means

SIGMAS = (1.5, 3.0)
"""Sigmas of the two Gaussians whose difference shows edges, in pixels."""
_EDGE_HU = (8.0, 60.0)
"""Smaller differences are noise of the reference, and all larger ones count alike: steps of about 50 and 400 HU."""
LOCAL_WINDOW, LOCAL_STEP = 32, 16
"""Side and spacing of the windows of the local correlation, pixels."""
LEAST_EDGES = 0.05
"""Smallest fraction of pixels on edges for which a window counts."""


def edges(image: torch.Tensor) -> torch.Tensor:
    """Signed edges: a difference of Gaussians, whose magnitude is clipped to 8 to 60 HU and reduced by 8 HU.

    Args:
        image: (B, 1, H, W), HU.

    Returns:
        The same shape, -52 to 52 HU; positive on the brighter side of an edge, 0 where there is none.

    >>> step = torch.zeros(1, 1, 32, 32)
    >>> step[..., 16:] = 200
    >>> edges(step)[0, 0, 0, 13:19].round().tolist()
    [-23.0, -23.0, -5.0, 5.0, 23.0, 23.0]
    """
    kernels = [gaussian_1d(torch.tensor(sigma), truncated=4.0, approx="sampled").to(image) for sigma in SIGMAS]
    # Repeat the border values: zeros would be 0 HU, which makes an edge next to air.
    narrow, wide = (
        weighted_means(pad(image, (kernel.numel() // 2,) * 4, mode="replicate"), kernel) for kernel in kernels
    )
    difference = narrow - wide
    least, most = _EDGE_HU
    return difference.sign() * (difference.abs().clamp(least, most) - least)


def edge_correlation(noise: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Correlation of the removed noise with the reference's edges, for each slice.

    For true noise, which does not depend on anatomy, it is about 0. Above 0, smoothing removed structure with the noise; below
    0, edges overshoot.

    Args:
        noise: N(y), (B, 1, H, W), HU.
        reference: reference image x, the same shape, HU.

    Returns:
        (B,), -1 to 1; 0 if nothing was removed or the reference has no edges.

    Raises:
        ValueError: shapes differ.

    >>> reference = torch.zeros(1, 1, 32, 32)
    >>> reference[..., 8:24, 8:24] = 200
    >>> edge_correlation(edges(reference), reference).item()
    1.0
    """
    if noise.shape != reference.shape or noise.ndim != 4:
        raise ValueError(
            f"Expected noise and reference of the same shape (B, 1, H, W), but got {tuple(noise.shape)} and {tuple(reference.shape)}."
        )
    first, second = (image.double().flatten(1) for image in (noise, edges(reference)))
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    spread = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(spread > 0, (first * second).sum(1) / spread.clamp(min=1e-30), 0.0).float()


def local_edge_correlation(noise: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """:func:`edge_correlation` in windows of 32 pixels, one every 16 pixels, which shows where structure was removed.

    Noise without any structure gives values around 0 with a standard deviation of 0.03 (white noise) to 0.15 (coarse noise of
    smooth kernels), so look at the mean of many windows.

    Args:
        noise: N(y), (B, 1, H, W) with sides of at least 32, HU.
        reference: reference image x, the same shape, HU.

    Returns:
        (B, 1, (H - 32) // 16 + 1, (W - 32) // 16 + 1), -1 to 1; NaN in windows without edges or without removed noise.

    Raises:
        ValueError: shapes differ, or sides are below 32.

    >>> reference = torch.zeros(1, 1, 64, 32)
    >>> reference[..., 44:, :] = 200
    >>> local_edge_correlation(edges(reference), reference).flatten().tolist()[1:]
    [1.0, 1.0]
    """
    if noise.shape != reference.shape or noise.ndim != 4 or min(noise.shape[-2:]) < LOCAL_WINDOW:
        raise ValueError(
            f"Expected noise and reference of the same shape (B, 1, H, W) with sides of at least {LOCAL_WINDOW}, but got "
            f"{tuple(noise.shape)} and {tuple(reference.shape)}."
        )
    first, second = noise.double(), edges(reference).double()
    products = [first, second, first * first, second * second, first * second, (second != 0).double()]
    means = [avg_pool2d(each, LOCAL_WINDOW, LOCAL_STEP) for each in products]
    variances = (means[2] - means[0] ** 2).clamp(min=0) * (means[3] - means[1] ** 2).clamp(min=0)
    told = (means[5] >= LEAST_EDGES) & (variances > 1e-9)
    correlation = (means[4] - means[0] * means[1]) / variances.clamp(min=1e-9).sqrt()
    return torch.where(told, correlation.clamp(-1, 1), torch.nan).float()


def validation_metrics(data_range: float) -> dict[str, IgniteMetricHandler]:
    """Ignite metrics of a validation: ``quality_metrics``, and ``edge_correlation`` of N(y) with the reference.

    Args:
        data_range: see ``quality_metrics``.

    Raises:
        ValueError: the data range is not positive.
    """
    structure = IgniteMetricHandler(metric_fn=SliceMetric(edge_correlation), output_transform=_removed_noise)
    return quality_metrics(data_range) | {"edge_correlation": structure}


def _removed_noise(output: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return output["image"] - output["denoised"], output["label"]
