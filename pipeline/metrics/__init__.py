"""Figures of merit, one file per family: pure functions first, then classes. Data ranges and windows have no defaults."""

from ct_cncl.pipeline.metrics.bootstrap import Interval, bootstrap_mean
from ct_cncl.pipeline.metrics.characterisation import Area, told_apart
from ct_cncl.pipeline.metrics.disagreement import calibration_curve, rank_correlation
from ct_cncl.pipeline.metrics.false_structure import Blobs, blobs_per_cm2
from ct_cncl.pipeline.metrics.image_quality import IMAGES, SliceMetric, mae, psnr, quality_metrics, rmse, ssim
from ct_cncl.pipeline.metrics.inserts import INSERTS, Insert, contrasts_kept, insert_places, with_inserts
from ct_cncl.pipeline.metrics.levels import disc_shifts
from ct_cncl.pipeline.metrics.noise_power import (
    NoiseFigures,
    noise_figures,
    noise_power_of_differences,
    noise_power_of_regions,
)
from ct_cncl.pipeline.metrics.nps_distance import nps_distance, uniform_patches
from ct_cncl.pipeline.metrics.observer import (
    Detectability,
    channelised_hotelling,
    difference_of_gaussian_channels,
)
from ct_cncl.pipeline.metrics.resolution import TaskTransfer, task_transfer
from ct_cncl.pipeline.metrics.structure import edge_correlation, local_edge_correlation, validation_metrics
from ct_cncl.pipeline.metrics.tissue import (
    HUError,
    hu_error,
    tissue_masks,
    tissue_masks_from_labels,
)
from ct_cncl.pipeline.metrics.visual_information import vif

__all__ = [
    "IMAGES",
    "INSERTS",
    "Area",
    "Blobs",
    "Detectability",
    "HUError",
    "Insert",
    "Interval",
    "NoiseFigures",
    "SliceMetric",
    "TaskTransfer",
    "blobs_per_cm2",
    "bootstrap_mean",
    "calibration_curve",
    "channelised_hotelling",
    "contrasts_kept",
    "difference_of_gaussian_channels",
    "disc_shifts",
    "edge_correlation",
    "hu_error",
    "insert_places",
    "local_edge_correlation",
    "mae",
    "noise_figures",
    "noise_power_of_differences",
    "noise_power_of_regions",
    "nps_distance",
    "psnr",
    "quality_metrics",
    "rank_correlation",
    "rmse",
    "ssim",
    "task_transfer",
    "tissue_masks",
    "tissue_masks_from_labels",
    "told_apart",
    "uniform_patches",
    "validation_metrics",
    "vif",
    "with_inserts",
]
