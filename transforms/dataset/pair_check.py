"""Checks that the images of a pair show the same anatomy at two doses, by their noise levels and their difference."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.anatomy.regions import (
    LOW_QUANTILE,
    MIN_WINDOWS,
    local_std,
    padding_mask,
    soft_tissue_windows,
)
from ct_cncl.transforms.common.errors import DataError

_MOST_SLICES = 5
_WINDOW = 9
_NOISIER = 1.05
"""How many times the image's noise level the label's may be; the margin allows for measurement error."""
_COARSE_SHARE, _COARSE_HU = 0.3, 25.0
"""If means over 9 x 9 pixels keep more than this share of the difference's variance, and more than this standard deviation in HU, the
difference is anatomy: noise and streaks average out.

The share was 0.01 to 0.03 on seven scans with the noise of a quarter and a twentieth of their dose, and 0.73 to 0.91 between two
patients or between two dates of one patient.
"""


def check_pair(image: np.ndarray, label: np.ndarray, names: tuple[str, str]) -> None:
    """Refuse a pair whose label is noisier than its image, or whose difference shows anatomy.

    Both are examined in a few slices. The noise is measured in the same windows of soft tissue; with too few windows, the noise
    levels are not compared.

    Args:
        image: (columns, rows, slices) HU, low dose.
        label: (columns, rows, slices) HU, full dose.
        names: names of image and label, for the message.

    Raises:
        DataError: the pair is refused; the message states the measured figures.

    >>> rng = np.random.default_rng(0)
    >>> body = np.pad(np.full((80, 80, 1), 40.0), ((10, 10), (10, 10), (0, 0)), constant_values=-1000)
    >>> low, full = (body + rng.normal(0, sigma, body.shape) for sigma in (20, 10))
    >>> check_pair(low, full, ("low", "full"))
    >>> check_pair(full, low, ("low", "full"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ct_cncl.transforms.common.errors.DataError: Expected the full dose to be less noisy than the low dose, but got ...
    """
    if min(label.shape[:2]) < 3 * _WINDOW:
        return
    places = np.unique(np.linspace(0, label.shape[2] - 1, min(_MOST_SLICES, label.shape[2])).round().astype(int))
    levels: list[list[np.ndarray]] = [[], []]
    coarse, whole, count = 0.0, 0.0, 0
    for z in places:
        low, full = image[..., z].astype(np.float64), label[..., z].astype(np.float64)
        windows = soft_tissue_windows((low + full) / 2, window=_WINDOW)
        for found, hu in zip(levels, (low, full)):
            found.append(local_std(hu, _WINDOW)[1][windows])
        measured = ~(padding_mask(low) | padding_mask(full))
        difference = np.where(measured, low - full, 0.0)
        coarse += float((local_std(difference, _WINDOW)[0][measured] ** 2).sum())
        whole += float((difference[measured] ** 2).sum())
        count += int(measured.sum())
    _refuse_structure(coarse, whole, count, names)
    of_image, of_label = map(np.concatenate, levels)
    if of_image.size < MIN_WINDOWS:
        return
    noise = [float(np.quantile(found, LOW_QUANTILE)) for found in (of_image, of_label)]
    if noise[1] > _NOISIER * noise[0]:
        raise DataError(
            f"Expected the full dose to be less noisy than the low dose, but got noise of {noise[1]:.1f} HU in the full dose ({names[1]}) "
            f"and of {noise[0]:.1f} HU in the low dose ({names[0]}), in the same soft tissue. Are the two swapped?"
        )


def _refuse_structure(coarse: float, whole: float, count: int, names: tuple[str, str]) -> None:
    if not count or not whole:
        return
    share, level = coarse / whole, float(np.sqrt(coarse / count))
    if share > _COARSE_SHARE and level > _COARSE_HU:
        raise DataError(
            f"Expected low dose ({names[0]}) and full dose ({names[1]}) to differ only by noise, but their difference shows structure: of its "
            f"{np.sqrt(whole / count):.0f} HU (rms), means over {_WINDOW} x {_WINDOW} pixels keep {level:.0f} HU, {100 * share:.0f} % of the variance, of "
            "which noise keeps a few per cent. Are they of the same patient and position?"
        )
