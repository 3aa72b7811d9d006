"""PSNR, SSIM and RMSE in HU over whole slices; they equal scikit-image's, and always require a data range."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics.regression import RegressionMetric

from ct_cncl.pipeline.metrics.local_moments import SSIM_BORDER, ssim_map
from ct_cncl.transforms.common.hu import Window

IMAGES = {"": "pred", "input": "image", "content": "content", "denoised": "denoised"}
"""Images that are compared with the reference: key in the evaluator's output, by suffix of the metric's name ("": result)."""


def _checked_range(data_range: float) -> float:
    if not data_range > 0:
        raise ValueError(f"Expected a positive data_range in HU (4096 is the full range), but got {data_range}.")
    return float(data_range)


def prepared(
    image: torch.Tensor, reference: torch.Tensor, data_range: float | Window
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Both images as a metric sees them, and the length of the data range.

    With a window, both images are clipped to it and shifted so that its lower end is 0.

    Args:
        image: (B, 1, H, W), HU.
        reference: the same shape, HU.
        data_range: length in HU, which leaves the images as they are, or a window.

    Raises:
        ValueError: the shapes differ, values are not finite, or the data range or width is not positive.
    """
    if image.shape != reference.shape or image.ndim != 4:
        raise ValueError(
            f"Expected image and reference of the same shape (B, 1, H, W), but got {tuple(image.shape)} and {tuple(reference.shape)}."
        )
    if not (image.isfinite().all() and reference.isfinite().all()):
        raise ValueError("Expected finite HU, but got NaN or infinity. Replace them, or leave the slice out.")
    if not isinstance(data_range, Window):
        return image, reference, _checked_range(data_range)
    width = _checked_range(data_range.width)
    low, high = data_range.low, data_range.high
    return image.clamp(low, high) - low, reference.clamp(low, high) - low, width


def mean_over(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of each slice over all pixels or those of a mask, from (B, 1, H, W) to (B,).

    Raises:
        ValueError: the mask has another shape or type, or is empty in some slice.

    >>> mean_over(torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[True, False]]]])).tolist()
    [1.0]
    """
    if mask is None:
        return values.flatten(1).mean(1)
    if mask.shape != values.shape or mask.dtype != torch.bool:
        raise ValueError(f"Expected a bool mask {tuple(values.shape)}, but got {mask.dtype} {tuple(mask.shape)}.")
    count = mask.flatten(1).sum(1)
    if (count == 0).any():
        raise ValueError("Expected a mask that holds pixels in every slice, but got an empty one. Leave the slice out.")
    return (values * mask).flatten(1).sum(1, dtype=torch.float64).div(count).to(values.dtype)


def psnr(
    image: torch.Tensor, reference: torch.Tensor, *, data_range: float | Window, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Peak signal-to-noise ratio of each slice, ``20 log10(data_range) - 10 log10(mean((image - reference)^2))``, in dB.

    Args:
        image: (B, 1, H, W), HU.
        reference: the same shape, HU.
        data_range: in HU, 4096 for the full 12-bit range; or a window, whose width is the data range and to which both images
            are clipped.
        mask: bool, the same shape; the mean is over its pixels. None takes all pixels.

    Returns:
        (B,), dB; infinite for equal images.

    Raises:
        ValueError: shapes differ, values are not finite, the data range is not positive, or a mask is empty.

    >>> psnr(torch.full((1, 1, 4, 4), 4.096), torch.zeros(1, 1, 4, 4), data_range=4096.0).round().tolist()
    [60.0]
    >>> psnr(torch.full((1, 1, 4, 4), 900.0), torch.full((1, 1, 4, 4), 210.0), data_range=Window(50, 400)).round().tolist()
    [20.0]
    """
    image, reference, length = prepared(image, reference, data_range)
    return 20 * math.log10(length) - 10 * mean_over((image - reference) ** 2, mask).log10()


def ssim(
    image: torch.Tensor, reference: torch.Tensor, *, data_range: float | Window, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Structural similarity of each slice (Wang et al., IEEE TIP 13(4), 2004), with a Gaussian window of 11 pixels, sigma 1.5.

    It equals scikit-image's ``structural_similarity`` with ``gaussian_weights=True, use_sample_covariance=False``: the mean
    leaves out a border of 5 pixels. SSIM depends on the position of 0: with a number as ``data_range`` that is 0 HU, with a
    window its lower end (as for images scaled to 0 to 1).

    Args:
        image: (B, 1, H, W) with sides of at least 11, HU.
        reference: the same shape, HU.
        data_range: in HU, or a window, see :func:`psnr`; the constants are (0.01 data_range)^2 and (0.03 data_range)^2.
        mask: bool, the same shape; the mean is over the windows centred on its pixels. None takes all.

    Returns:
        (B,), at most 1.

    Raises:
        ValueError: see :func:`psnr`; or sides are below 11.
    """
    image, reference, length = prepared(image, reference, data_range)
    inside = None if mask is None else mask[..., SSIM_BORDER:-SSIM_BORDER, SSIM_BORDER:-SSIM_BORDER]
    return mean_over(ssim_map(image, reference, data_range=length), inside)


def rmse(image: torch.Tensor, reference: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Root mean squared error of each slice in HU, from image, reference and optional bool mask (B, 1, H, W) to (B,).

    Raises:
        ValueError: shapes differ, values are not finite, or a mask is empty.
    """
    image, reference, _ = prepared(image, reference, 1.0)
    return mean_over((image - reference) ** 2, mask).sqrt()


def mae(image: torch.Tensor, reference: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean absolute error of each slice in HU, from image, reference and optional bool mask (B, 1, H, W) to (B,).

    Raises:
        ValueError: shapes differ, values are not finite, or a mask is empty.

    >>> mae(torch.tensor([[[[1.0, -3.0]]]]), torch.zeros(1, 1, 1, 2)).tolist()
    [2.0]
    """
    image, reference, _ = prepared(image, reference, 1.0)
    return mean_over((image - reference).abs(), mask)


class SliceMetric(RegressionMetric):
    """A figure as a MONAI metric with one value per slice, from image and reference (B, 1, H, W), HU, to (B, 1).

    Args:
        figure: a function ``(image, reference) -> (B,)``; use :func:`functools.partial` to set a data range.
    """

    def __init__(self, figure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.figure = figure

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.figure(y_pred, y)[:, None]


def _of_finite(
    image: torch.Tensor, reference: torch.Tensor, *, figure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """``figure``, with NaN for slices that are not finite: a network that overflows must not end the run that evaluates it."""
    finite = image.isfinite().flatten(1).all(1)
    values = figure(torch.where(finite[:, None, None, None], image, reference), reference)
    return values.masked_fill(~finite, torch.nan)


def _pair(output: dict[str, torch.Tensor], *, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    return output[key], output["label"]


def quality_metrics(data_range: float) -> dict[str, IgniteMetricHandler]:
    """Ignite metrics of an evaluation: means over slices of PSNR, SSIM and RMSE for the result, the input and each branch.

    Those of the result are named ``psnr``, ``ssim`` and ``rmse``; the others ``psnr_input``, ``psnr_content`` (C(y)),
    ``psnr_denoised`` (y - N(y)), and so on. With several processes, each is the mean over the slices of all processes. Slices
    with NaN or infinity are left out of the means.

    Args:
        data_range: data range of PSNR and SSIM in HU, 4096 for the full range.

    Raises:
        ValueError: the data range is not positive.
    """
    data_range = _checked_range(data_range)
    figures: dict[str, Callable] = {
        "psnr": partial(psnr, data_range=data_range),
        "ssim": partial(ssim, data_range=data_range),
        "rmse": rmse,
    }
    return {
        f"{name}_{suffix}" if suffix else name: IgniteMetricHandler(
            metric_fn=SliceMetric(partial(_of_finite, figure=figure)), output_transform=partial(_pair, key=key)
        )
        for suffix, key in IMAGES.items()
        for name, figure in figures.items()
    }
