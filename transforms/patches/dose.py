"""Training pairs at random doses from stored noise realizations: what is drawn, and what it makes of a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.physics.noise_realizations import check_dose_range, cut_off, dose_between, noise_factor


class StoredNoise(NamedTuple):
    """One realisation of noise realizations: HU are ``values * step_hu``."""

    values: np.ndarray
    """(x, y, z) int16, memory-mapped."""
    step_hu: float


def open_noise(path: str) -> StoredNoise:
    """Memory-mapped noise realization of an uncompressed int16 NIfTI with its scale in ``scl_slope``.

    Raises:
        DataError: the file is not of that kind.
    """
    state = Path(path).stat()
    return _open_noise(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _open_noise(path: str, _inode: int, _changed_ns: int) -> StoredNoise:
    """Opened once, as :func:`~ct_cncl.transforms.dataset.volume_store.mapped_volume`."""
    stored = nib.load(path).dataobj  # type: ignore[attr-defined]
    values = stored.get_unscaled()
    if not isinstance(values, np.memmap) or values.dtype != np.dtype("<i2") or values.ndim != 3 or stored.inter != 0:
        raise DataError(
            f"Expected {path} to be uncompressed int16 noise realization (x, y, z) with a scale, but got {values.dtype} with shape "
            f"{values.shape}. Prepare the data set with `ct-cncl prepare --realizations K`."
        )
    return StoredNoise(values, float(stored.slope))


class DoseDraw(NamedTuple):
    """The doses of one training pair, and the noise realizations they are made with."""

    fraction: float
    """Of the image relative to its target."""
    target_fraction: float
    """Of the target relative to the stored scan; 1 without nesting."""
    realizations: tuple[int, ...]
    """Of the image, and with nesting of the target; never the same."""


class RandomDose:
    """Doses of training pairs, drawn log-uniformly.

    The image gets ``x' + sqrt((1 - a) / (a b)) n2``. Its target x' is the stored scan x (b = 1), or with nesting the scan at
    a lower dose b of its own, ``x' = x + sqrt((1 - b) / b) n1``: absolute noise then varies from patch to patch, while its
    ratio between image and target follows from a as in real pairs. A noise-free scan (phantom) has all of the noise of its
    dose added, ``sqrt(1 / a)`` or ``sqrt(1 / b)``.

    Args:
        dose_range: lowest and highest a, above 0 and up to 1.
        nested_dose_range: lowest and highest b; None does not nest.

    Raises:
        ValueError: ranges that are none.
    """

    def __init__(self, dose_range: Sequence[float], nested_dose_range: Sequence[float] | None = None) -> None:
        self.dose_range = check_dose_range(dose_range)
        self.nested_dose_range = None if nested_dose_range is None else check_dose_range(nested_dose_range)

    def check(self, entry: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        """Refuse an entry without enough noise realization of its own shape.

        Raises:
            DataError: naming the entry.
        """
        needed, paths = (1 if self.nested_dose_range is None else 2), entry.get("noise", [])
        if len(paths) < needed:
            raise DataError(
                f"Expected {needed} or more volumes of noise realizations for {entry.get('source', entry['label'])}, which dose_range "
                f"needs, but got {len(paths)}. Prepare simulated data with --realizations {needed}, or set dose_range to null."
            )
        for path in paths:
            found = open_noise(path).values.shape
            if found != shape:
                raise DataError(
                    f"Expected noise realization of the label's shape {shape}, but {path} has {found}. Prepare the data set anew."
                )

    def draw(self, generator: np.random.Generator, count: int) -> DoseDraw:
        """Doses and realisations for one pair, of an entry with ``count`` realisations."""
        fraction = dose_between(self.dose_range, generator.random())
        if self.nested_dose_range is None:
            return DoseDraw(fraction, 1.0, (int(generator.integers(count)),))
        target_fraction = dose_between(self.nested_dose_range, generator.random())
        chosen = generator.choice(count, 2, replace=False)
        return DoseDraw(fraction, target_fraction, (int(chosen[0]), int(chosen[1])))


def pair_at_dose(
    label: np.ndarray, unit: Sequence[np.ndarray], draw: DoseDraw, *, noise_free: bool, floor_hu: float
) -> tuple[np.ndarray, np.ndarray]:
    """Image and target from a scan and noise realization; see :class:`RandomDose`.

    Args:
        label: the stored scan, any shape, HU.
        unit: noise realization of the realisations drawn, in their order, each of that shape, HU.
        draw: the doses.
        noise_free: whether the stored scan has no noise of its own.
        floor_hu: where the scanner cuts off.

    Returns:
        (image, target), HU.

    >>> scan, noise = np.zeros(2), [np.array([1.0, -1.0]), np.array([10.0, 10.0])]
    >>> pair_at_dose(scan, noise, DoseDraw(0.5, 0.5, (0, 1)), noise_free=False, floor_hu=-1024.0)
    (array([11.41421356,  8.58578644]), array([10., 10.]))
    """
    first, second = dose_factors(draw, noise_free=noise_free)
    target = label + second * unit[1] if len(unit) > 1 else label
    return cut_off(target + first * unit[0], label, floor_hu), cut_off(target, label, floor_hu)


def dose_factors(draw: DoseDraw, *, noise_free: bool) -> tuple[float, float]:
    """What the noise realization of the image and that of its target are multiplied by; the latter 0 without nesting.

    >>> dose_factors(DoseDraw(0.5, 0.25, (0, 1)), noise_free=True)
    (2.0, 2.0)
    """
    if len(draw.realizations) == 1:
        return noise_factor(draw.fraction, of=draw.target_fraction, noise_free=noise_free), 0.0
    target = noise_factor(draw.target_fraction, noise_free=noise_free)
    return noise_factor(draw.fraction, of=draw.target_fraction), target  # the target has noise of its own by then


def pairs_at_doses(
    labels: torch.Tensor, unit: Sequence[torch.Tensor], draws: Sequence[DoseDraw], models: Sequence[Mapping[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`pair_at_dose` for a batch, to the bit.

    Args:
        labels: the stored scans, (B, C, H, W), HU.
        unit: noise realization of the first and, with nesting, of the second realisations drawn, each of that shape, HU.
        draws: B of them.
        models: B times what the datalist says of an entry's noise, "noise_free" and "floor_hu".

    Returns:
        (images, targets), HU.
    """
    factors = [dose_factors(draw, noise_free=model["noise_free"]) for draw, model in zip(draws, models, strict=True)]
    rows = [(*factor, model["floor_hu"]) for factor, model in zip(factors, models)]
    first, second, floor = torch.tensor(rows, dtype=labels.dtype).to(labels.device).T[..., None, None, None]
    target = labels + second * unit[1] if len(unit) > 1 else labels
    return cut_off(target + first * unit[0], labels, floor), cut_off(target, labels, floor)
