"""PSNR, SSIM and RMSE in HU over whole slices; equal to scikit-image's, with the data range always said."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import PSNRMetric, RMSEMetric, SSIMMetric
from monai.metrics.regression import CumulativeIterationMetric

IMAGES = {"": "pred", "input": "image", "content": "content", "denoised": "denoised"}
"""What is judged against the truth: suffix of the metric's name, key in the evaluator's output ("" is the result)."""


def _checked_range(data_range: float) -> float:
    if not data_range > 0:
        raise ValueError(f"Expected a positive data_range in HU (4096 is the full range), but got {data_range}.")
    return float(data_range)


def _metrics(data_range: float) -> dict[str, CumulativeIterationMetric]:
    data_range = _checked_range(data_range)
    return {
        "psnr": PSNRMetric(max_val=data_range),
        "ssim": SSIMMetric(spatial_dims=2, data_range=data_range),
        "rmse": RMSEMetric(),
    }


def _single(name: str, image: torch.Tensor, truth: torch.Tensor, data_range: float) -> torch.Tensor:
    if image.shape != truth.shape or image.ndim != 4:
        raise ValueError(
            f"Expected image and truth of one shape (B, 1, H, W), but got {tuple(image.shape)} and {tuple(truth.shape)}."
        )
    return _metrics(data_range)[name](image, truth).flatten()


def psnr(image: torch.Tensor, truth: torch.Tensor, *, data_range: float) -> torch.Tensor:
    """Peak signal-to-noise ratio ``20 log10(data_range) - 10 log10(mean((image - truth)^2))`` in dB, a slice each.

    Args:
        image: (B, 1, H, W), HU.
        truth: the same shape, HU.
        data_range: in HU; 4096 for the full 12-bit range.

    Returns:
        (B,), dB; infinite for equal images.

    Raises:
        ValueError: shapes differ, or the data range is not positive.

    >>> psnr(torch.full((1, 1, 4, 4), 4.096), torch.zeros(1, 1, 4, 4), data_range=4096.0).round().tolist()
    [60.0]
    """
    return _single("psnr", image, truth, data_range)


def ssim(image: torch.Tensor, truth: torch.Tensor, *, data_range: float) -> torch.Tensor:
    """Structural similarity (Wang et al., IEEE TIP 13(4), 2004), Gaussian window of 11 pixels and sigma 1.5, a slice each.

    scikit-image's ``structural_similarity`` with ``gaussian_weights=True, use_sample_covariance=False``.

    Args:
        image: (B, 1, H, W) with sides of at least 11, HU.
        truth: the same shape, HU.
        data_range: in HU; the constants are (0.01 data_range)^2 and (0.03 data_range)^2.

    Returns:
        (B,), at most 1.

    Raises:
        ValueError: shapes differ, or the data range is not positive.
    """
    return _single("ssim", image, truth, data_range)


def rmse(image: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Root mean squared error in HU, a slice each: (B, 1, H, W) twice to (B,).

    Raises:
        ValueError: shapes differ.
    """
    return _single("rmse", image, truth, 1.0)


def image_quality(image: torch.Tensor, truth: torch.Tensor, *, data_range: float) -> dict[str, torch.Tensor]:
    """PSNR (dB), SSIM and RMSE (HU) of (B, 1, H, W) slices, each (B,), by name."""
    return {name: _single(name, image, truth, data_range) for name in _metrics(data_range)}


def _pair(output: dict[str, torch.Tensor], *, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    return output[key], output["label"]


def quality_metrics(data_range: float) -> dict[str, IgniteMetricHandler]:
    """Ignite metrics over an evaluation: means over slices of PSNR, SSIM, RMSE for the result, the input and each branch.

    The result's are named ``psnr``, ``ssim`` and ``rmse``; the others ``psnr_input``, ``psnr_content`` (C(y)) and
    ``psnr_denoised`` (y - N(y)), and so on. In several processes each is the mean over all processes' slices.

    Args:
        data_range: in HU, 4096 for the full range.

    Raises:
        ValueError: the data range is not positive.
    """
    handlers = {}
    for suffix, key in IMAGES.items():
        transform: Callable = partial(_pair, key=key)
        for name, metric in _metrics(data_range).items():
            full_name = f"{name}_{suffix}" if suffix else name
            handlers[full_name] = IgniteMetricHandler(metric_fn=metric, output_transform=transform)
    return handlers
