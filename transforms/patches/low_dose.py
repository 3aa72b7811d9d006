"""MONAI transforms that lower the dose of a scan with the full physics: for preparing data, not for the training loop."""

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
    """A scan as it would look at a lower dose.

    The scan is calibrated and projected, noise is inserted, and the result is cut off at the scanner's lowest value.
    Calibration takes a few seconds per volume and the noise a fraction of a second per slice, so this is for preparing
    data, not for the training loop. Padding stays as it is, and ``dose_fraction=1`` returns an exact copy. The noise
    depends on ``seed`` and on the volume, not on the order of calls.

    Args:
        dose_fraction: a, above 0 and up to 1; 0.25 is quarter dose.
        incident_photons: N0 of the scan at full dose; None measures the noise level and spectrum of each volume.
        settings: all other settings (electronic variance, filter, views, geometry); None takes the defaults, with the
            electronic noise that is usual for scanners.
        seed: seed of the noise, 0 or above.

    Raises:
        ValueError: a value is out of range.
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
            raise ValueError(f"Expected a seed of 0 or above, but got {seed}.")
        self.settings = dataclasses.replace(settings or DoseSettings(), dose_fraction=dose_fraction)
        self.incident_photons = (
            None
            if incident_photons is None
            else dataclasses.replace(self.settings, incident_photons=incident_photons).incident_photons
        )
        self.usual_electronics = settings is None
        self.seed = seed
        self.calibration: Calibration | None = None
        """Calibration of the last volume; None before the first one, and with a dose fraction of 1."""

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """Take a volume to the lower dose.

        Args:
            img: (1, x, y, z) in HU, slices last, with an affine in mm.

        Returns:
            The volume at the lower dose, float32, with the shape, device, affine and metadata of ``img``; "dose_fraction" and
            "incident_photons" are added to the metadata. At a dose fraction of 1, a copy of ``img``.

        Raises:
            ValueError: ``img`` has no affine or another shape, or its values are not HU.
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
            f"Expected a MetaTensor, whose affine holds the pixel size, but got {type(img).__name__}. Load it with LoadScand."
        )
    if img.ndim != 4 or img.shape[0] != 1:
        raise ValueError(f"Expected a volume (1, x, y, z), but got shape {tuple(img.shape)}. Load it with LoadScand.")
    spacing = voxel_spacing(np.asarray(img.affine, dtype=np.float64))
    return float(spacing[0]), float(spacing[1])


class SimulateLowDosed(MapTransform):
    """Dictionary version of :class:`SimulateLowDose`.

    Args:
        keys: volumes (1, x, y, z) in HU.
        dose_fraction: see :class:`SimulateLowDose`.
        incident_photons: see :class:`SimulateLowDose`.
        settings: see :class:`SimulateLowDose`.
        seed: see :class:`SimulateLowDose`.
        allow_missing_keys: skip keys that the item lacks.
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
