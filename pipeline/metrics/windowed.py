"""PSNR, SSIM and VIF through display windows, for Ignite's engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from monai.handlers import IgniteMetricHandler

from ct_cncl.pipeline.metrics.image_quality import SliceMetric, psnr, ssim
from ct_cncl.pipeline.metrics.visual_information import vif
from ct_cncl.transforms.common.hu import WINDOWS

FIGURES: dict[str, Callable[..., torch.Tensor]] = {"psnr": psnr, "ssim": ssim, "vif": vif}


def windowed_metrics(windows: Iterable[str], *, key: str = "pred") -> dict[str, IgniteMetricHandler]:
    """Ignite metrics over an evaluation: means over slices of PSNR, SSIM and VIF through each window.

    Args:
        windows: names out of :data:`ct_cncl.transforms.common.hu.WINDOWS`.
        key: of what is judged in the evaluator's output, HU; the truth is under "label".

    Returns:
        By name, for example "psnr_abdomen".

    Raises:
        ValueError: an unknown window.
    """

    def pair(output: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return output[key], output["label"]

    names = list(windows)
    unknown = sorted(set(names) - set(WINDOWS))
    if unknown:
        raise ValueError(f"Expected windows out of {', '.join(WINDOWS)}, but got {', '.join(unknown)}.")
    return {
        f"{figure}_{name}": IgniteMetricHandler(
            metric_fn=SliceMetric(partial(function, data_range=WINDOWS[name])), output_transform=pair
        )
        for name in names
        for figure, function in FIGURES.items()
    }
