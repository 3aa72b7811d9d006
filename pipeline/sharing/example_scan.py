"""A small scan that a shared bundle carries with its result, so that anyone can check that the bundle still reproduces it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn

from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.common.files import replacing

SCAN = "example/scan.nii"
_RESULT = "example/scan_denoised.nii"
SHAPE = (96, 80, 2)
NOISE_HU = 25.0


def example_hu() -> np.ndarray:
    """A body of 40 HU in air with three inserts and white noise, (x, y, slices), float32 with integer HU.

    >>> hu = example_hu()
    >>> hu.shape, 20 < float(hu[40:56, 20:28].std()) < 30
    ((96, 80, 2), True)
    """
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    hu = np.where((x / 0.85) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -990.0)
    for centre, radius, value in ((-0.4, 0.15, 140.0), (0.0, 0.1, -60.0), (0.4, 0.2, 60.0)):
        hu = np.where((x - centre) ** 2 + (y - 0.15) ** 2 < radius**2, value, hu)
    noise = np.random.default_rng(0).normal(0.0, NOISE_HU, SHAPE)
    return np.rint(hu + noise).clip(-1023).astype(np.float32)


class _InDouble(nn.Module):
    """A network in double precision whose input and output are in single precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = deepcopy(network).double()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image.double()).float()


def write_example(weights: Weights, folder: Path) -> None:
    """Write the scan and its result, computed in double precision, so that it does not depend on a machine's rounding.

    Args:
        weights: the network.
        folder: folder of the bundle.
    """
    hu = example_hu()
    denoised = denoise_volume(hu, replace(weights, network=_InDouble(weights.network)), Settings())
    for name, volume in ((SCAN, hu), (_RESULT, denoised)):
        with replacing(folder / name) as temporary:
            # Columns run towards the patient's left and rows towards the back, as scans are displayed, so nothing is flipped.
            temporary.write_bytes(nib.Nifti1Image(volume, np.diag([-0.8, -0.8, 5.0, 1.0])).to_bytes())
