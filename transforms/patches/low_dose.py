"""MONAI transforms that lower the dose of a scan: the full physics, and a quick one for the training loop."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ct_cncl.transforms.physics import Calibration, DoseSettings
from ct_cncl.transforms.physics.noise_realizations import (
    SCANNER_FLOOR_HU,
    check_dose_range,
    cut_off,
    dose_between,
    noise_factor,
)
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
            ValueError: no affine, another shape, or what is no HU.
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


class RandLowDose(RandomizableTransform):
    """A random lower dose from stored noise realizations: one realisation, scaled to the dose and added.

    Costs a multiplication and an addition, so it fits into a training loop. Exact where electronic noise is negligible:
    :mod:`ct_cncl.transforms.physics.noise_realizations` makes noise realization and says where it is not.

    Args:
        dose_range: lowest and highest dose fraction, above 0 and up to 1; drawn log-uniformly.
        prob: probability that the dose is lowered at all.
        floor_hu: where the scanner cuts off, HU; None cuts nothing.

    Raises:
        ValueError: a range that is none.
    """

    def __init__(
        self, dose_range: tuple[float, float], *, prob: float = 1.0, floor_hu: float | None = SCANNER_FLOOR_HU
    ) -> None:
        super().__init__(prob)
        self.dose_range = check_dose_range(dose_range)
        self.floor_hu = floor_hu
        self.dose_fraction = 1.0
        """Drawn last."""
        self.realization = 0
        """Drawn last, from 0 on."""

    def randomize(self, data: int) -> None:
        """Draw whether, to which dose, and with which of ``data`` realisations."""
        super().randomize(None)
        self.dose_fraction = dose_between(self.dose_range, self.R.uniform())
        self.realization = int(self.R.randint(data))

    def __call__(self, img: NdarrayOrTensor, noise: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """The image at the dose that was drawn.

        Args:
            img: (1, x, y) or (1, x, y, z), HU, at full dose.
            noise: (realisations, x, y) or (realisations, x, y, z), noise realization, HU.
            randomize: draw first; False uses what was drawn last.

        Returns:
            Type, shape, meta data and device of ``img``, float32; ``img`` itself where the dose is not lowered.

        Raises:
            ValueError: shapes that do not fit.
        """
        if img.shape[0] != 1 or noise.shape[0] < 1 or tuple(noise.shape[1:]) != tuple(img.shape[1:]):
            raise ValueError(
                f"Expected an image (1, ...) and noise realization (realisations, ...) of its size but got {tuple(img.shape)} and "
                f"{tuple(noise.shape)}. Crop both alike."
            )
        if randomize:
            self.randomize(noise.shape[0])
        if not self._do_transform:
            return img
        clean = convert_to_tensor(img, track_meta=False, dtype=torch.float32)
        unit = convert_to_tensor(noise, track_meta=False)[self.realization][None].to(clean)
        result = clean + noise_factor(self.dose_fraction) * unit
        if self.floor_hu is not None:
            result = cut_off(result, clean, self.floor_hu)
        return convert_to_dst_type(result, img, dtype=torch.float32)[0]


class RandLowDosed(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandLowDose`; all keys get the same dose and the same noise.

    Args:
        keys: images (1, x, y) or (1, x, y, z) in HU, of one size.
        dose_range: see :class:`RandLowDose`.
        noise_key: entry with the noise realization (realisations, x, y) or (realisations, x, y, z), HU.
        prob: see :class:`RandLowDose`.
        floor_hu: see there.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        dose_range: tuple[float, float],
        *,
        noise_key: str = "noise",
        prob: float = 1.0,
        floor_hu: float | None = SCANNER_FLOOR_HU,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        self.noise_key = noise_key
        self.transform = RandLowDose(dose_range, prob=prob, floor_hu=floor_hu)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLowDosed:
        """As everywhere in MONAI: what is drawn from now on depends on ``seed`` only."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: int) -> None:
        """Draw for an entry that has ``data`` realisations."""
        self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Lower the dose of each key."""
        items = dict(data)
        if self.noise_key not in items:
            raise KeyError(
                f"Expected noise realization under {self.noise_key!r} but the entry has only {sorted(map(str, items))}. Prepare the "
                "data with --realizations, or name its key with noise_key."
            )
        self.randomize(items[self.noise_key].shape[0])
        for key in self.key_iterator(items):
            items[key] = self.transform(items[key], items[self.noise_key], randomize=False)
        return items
