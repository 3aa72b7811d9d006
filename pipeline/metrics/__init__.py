"""Figures of merit; each needs its data range."""

from ct_cncl.pipeline.metrics.image_quality import IMAGES, image_quality, psnr, quality_metrics, rmse, ssim

__all__ = ["IMAGES", "image_quality", "psnr", "quality_metrics", "rmse", "ssim"]
