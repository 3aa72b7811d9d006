"""PSNR, SSIM and VIF through display windows, as MONAI metrics and for Ignite's engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics.regression import RegressionMetric

from ct_cncl.pipeline.metrics.image_quality import psnr, ssim
from ct_cncl.pipeline.metrics.visual_information import vif
from ct_cncl.transforms.common.hu import WINDOWS, Window

FIGURES: dict[str, Callable[..., torch.Tensor]] = {"psnr": psnr, "ssim": ssim, "vif": vif}


class WindowedMetric(RegressionMetric):
    """A figure through a window as a MONAI metric, a value a slice: (B, 1, H, W) HU twice to (B, 1).

    Args:
        figure: a function ``(image, truth, *, data_range) -> (B,)``, for example :func:`~.visual_information.vif`.
        window: at whose ends images are cut off; its width is the data range.
    """

    def __init__(self, figure: Callable[..., torch.Tensor], *, window: Window) -> None:
        super().__init__()
        self.figure, self.window = figure, window

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.figure(y_pred, y, data_range=self.window)[:, None]


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
            metric_fn=WindowedMetric(function, window=WINDOWS[name]), output_transform=pair
        )
        for name in names
        for figure, function in FIGURES.items()
    }
