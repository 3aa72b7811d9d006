"""MONAI transforms that lower the dose of a scan by the full physics: for preparing data, not for the training loop."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from ct_cncl.transforms.physics import Calibration, DoseSettings
from ct_cncl.transforms.physics.simulation import calibrate, low_dose
from ct_cncl.transforms.series import voxel_spacing


class SimulateLowDose(Transform):
    """A scan as it would look at a lower dose: calibrated, projected, noise inserted, cut off at the scanner's floor.

    Takes a few seconds a volume for calibration and a fraction of a second a slice for noise: for preparing data, not for
    the training loop. Voxels of padding stay as they are, and ``dose_fraction=1`` returns the volume bit by bit. The noise
    depends on ``seed`` and on the volume, not on the order of calls.

    Args:
        dose_fraction: a, above 0 and up to 1; 0.25 is quarter dose.
        incident_photons: N0 of the scan at full dose; None measures level and spectrum in each volume.
        settings: everything else (electronic variance, filter, views, geometry); None takes the defaults, and electronic noise as
            scanners usually have it.
        seed: of the noise, 0 or above.

    Raises:
        ValueError: values outside their range.
    """

    def __init__(
        self,
        dose_fraction: float,
        *,
        incident_photons: float | None = None,
        settings: DoseSettings | None = None,
        seed: int = 0,
    ) -> None:
        if seed < 0:
            raise ValueError(f"Expected a seed of 0 or above but got {seed}.")
        self.settings = dataclasses.replace(settings or DoseSettings(), dose_fraction=dose_fraction)
        self.incident_photons = (
            None
            if incident_photons is None
            else dataclasses.replace(self.settings, incident_photons=incident_photons).incident_photons
        )
        self.usual_electronics = settings is None
        self.seed = seed
        self.calibration: Calibration | None = None
        """Of the last volume; None before the first and for a dose fraction of 1."""

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """The volume at the lower dose.

        Args:
            img: (1, x, y, z) in HU, slices last, with an affine in mm.

        Returns:
            The same shape, float32 (its own dtype for full dose), device, affine and meta data, to which "dose_fraction"
            and "photons" are added.

        Raises:
            ValueError: no affine, another shape, or values not in HU.
        """
        pixel = _pixel_mm(img)
        settings = self.settings
        if settings.dose_fraction == 1:
            return img.clone()
        hu = img.as_tensor().detach().cpu().numpy()[0]
        seed = int(np.random.SeedSequence([self.seed, zlib.crc32(hu.tobytes())]).generate_state(1)[0])
        self.calibration = calibrate(
            hu,
            pixel,
            settings,
            seed,
            incident_photons=self.incident_photons,
            usual_electronics=self.usual_electronics,
        )
        settings = self.calibration.apply(settings)
        result = torch.from_numpy(low_dose(hu, pixel, settings, seed))[None]
        low = convert_to_dst_type(result, img, dtype=torch.float32)[0]
        low.meta |= {"dose_fraction": settings.dose_fraction, "incident_photons": settings.incident_photons}
        return low


def _pixel_mm(img: MetaTensor) -> tuple[float, float]:
    if not isinstance(img, MetaTensor):
        raise ValueError(
            f"Expected a MetaTensor, whose affine holds the pixel size, but got {type(img).__name__}. Load with LoadScand."
        )
    if img.ndim != 4 or img.shape[0] != 1:
        raise ValueError(f"Expected a volume (1, x, y, z) but got shape {tuple(img.shape)}. Load with LoadScand.")
    spacing = voxel_spacing(np.asarray(img.affine, dtype=np.float64))
    return float(spacing[0]), float(spacing[1])


class SimulateLowDosed(MapTransform):
    """Dictionary version of :class:`SimulateLowDose`.

    Args:
        keys: volumes (1, x, y, z) in HU.
        dose_fraction: see :class:`SimulateLowDose`.
        incident_photons: see there.
        settings: see there.
        seed: see there.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        dose_fraction: float,
        *,
        incident_photons: float | None = None,
        settings: DoseSettings | None = None,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = SimulateLowDose(dose_fraction, incident_photons=incident_photons, settings=settings, seed=seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take each key to the lower dose."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = self.transform(items[key])
        return items
