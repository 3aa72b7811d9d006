"""Provenance of an evaluation, so that it can be repeated."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from ct_cncl.pipeline.evaluation.record import Provenance
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES, RESAMPLES
from ct_cncl.pipeline.metrics.nps_distance import PATCH
from ct_cncl.pipeline.metrics.tissue import TISSUE_HU
from ct_cncl.pipeline.workflow import locations as bundle
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.hu import Window

CONSTANTS = {
    "PSNR, SSIM through a window": "both images cut off at its ends, data range its width, SSIM's 0 at its lower end; "
    "full range: nothing cut off, SSIM's 0 at 0 HU, as in training",
    "SSIM": "Gaussian window of 11 pixels, sigma 1.5, constants (0.01 range)^2 and (0.03 range)^2",
    "VIF": "pixel domain, 4 scales with windows of 17, 9, 5, 3 pixels, sigma a fifth of them; window = 255 levels, sigma_n^2 = 2",
    "tissues": ", ".join(f"{name} {low:g} to {high:g} HU" for name, (low, high) in TISSUE_HU.items())
    + "; of the reference after a mean over 5 x 5 pixels, 2 pixels of each border taken off",
    "noise power": f"calmest soft-tissue patches of the reference, {PATCH} x {PATCH} pixels, plane taken off, Hann window",
    "structure leakage": "correlation of input - image with the reference's difference of Gaussians (1.5 and 3 pixels), 8 HU taken off, at most 52",
    "intervals": f"95 %, bootstrap-t, {RESAMPLES} resamples, within the range of the values; none for fewer than {LEAST_VALUES} values",
}


def provenance(
    *,
    windows: Mapping[str, Window],
    seeds: Mapping[str, int],
    files: Mapping[str, str],
    constants: Mapping[str, str] = CONSTANTS,
) -> Provenance:
    """Record versions, the command of this process, the time and the settings.

    Args:
        windows: windows by name.
        seeds: seeds by purpose.
        files: files by method.
        constants: constants in words, by metric.
    """
    revision = bundle._git_revision()
    versions = {
        "ct-cncl": f"{__version__} ({revision})" if revision else __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    words = ", ".join(f"{name} {window}" for name, window in windows.items())
    return Provenance(
        shlex.join(["ct-cncl", *sys.argv[1:]] if Path(sys.argv[0]).name == "ct-cncl" else sys.argv),
        datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds"),
        versions,
        f"windows (centre/width), whose width is the data range: {words}; RMSE, MAE, bias and standard deviation in HU without a window",
        seeds,
        constants,
        files,
    )
