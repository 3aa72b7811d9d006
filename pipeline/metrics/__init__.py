"""Figures of merit; each needs its data range."""

from ct_cncl.pipeline.metrics.image_quality import IMAGES, image_quality, psnr, quality_metrics, rmse, ssim
from ct_cncl.pipeline.metrics.structure import edge_correlation, validation_metrics

__all__ = [
    "IMAGES",
    "edge_correlation",
    "image_quality",
    "psnr",
    "quality_metrics",
    "rmse",
    "ssim",
    "validation_metrics",
]
