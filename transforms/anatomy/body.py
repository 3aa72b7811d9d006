"""Where the patient is in a CT slice, with everything inside: lungs, bowel gas, airways."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, label, uniform_filter

from ct_cncl.transforms.anatomy.regions import padding_mask

BODY_HU = -500.0
"""Above it a pixel is tissue or table, below it air or lung."""
AIR_HU = -940.0
"""Air outside is below it, lung above: -1000 and -950 to -700 HU."""
LEAST_SHARE = 0.05
"""Parts of the body (legs, arms) that are smaller than this share of the largest one are taken for something else."""
LEAST_AREA = 0.005
"""A largest part below this share of the slice is no patient."""
OPENING = 0.02
"""Twice this share of the slice's smaller side, about 12 mm, is how thin a table top or a tube may be to be left out."""
_SQUARE = np.ones((3, 3), dtype=bool)


def body_mask(hu_slice: np.ndarray) -> np.ndarray:
    """Pixels of the patient, air inside included; without table, tubes, clothes, outside air and the scanner's padding.

    Pixels above :data:`BODY_HU` after a 3 x 3 mean, freed of what is thin by an opening; of the connected parts, the
    largest and those of at least :data:`LEAST_SHARE` of it; then whatever outside air cannot reach through gaps wider than
    the opening. What reaches the edge of the field of view is outside where it is air there, by the median below
    :data:`AIR_HU`; a lung that the edge cuts open is not. Gas under skin that is thinner than the opening counts as outside.

    Args:
        hu_slice: (x, y), HU, any scan: noise and padding do no harm.

    Returns:
        bool (x, y); nothing is True where there is no patient.

    Raises:
        ValueError: for a slice that is not two-dimensional or has a side below 3.

    >>> disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    >>> slice_hu = np.where(disc, 40.0, -1000.0)
    >>> slice_hu[28:36, 28:36] = -900.0  # a lung
    >>> bool((body_mask(slice_hu) == disc).all())
    True
    """
    hu = np.asarray(hu_slice, dtype=np.float64)
    if hu.ndim != 2 or min(hu.shape) < 3:
        raise ValueError(f"Expected a slice (x, y) with sides of at least 3, but got shape {hu.shape}.")
    padding = padding_mask(hu)
    reach = max(1, round(OPENING * min(hu.shape) / 2))
    # Cut off first: metal and padding must not reach their neighbours.
    tissue = (uniform_filter(np.clip(hu, -1000.0, 0.0), 3, mode="mirror") > BODY_HU) & ~padding
    solid = _grown(_shrunk(tissue, reach), reach) & tissue
    labels, _ = label(solid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < LEAST_AREA * hu.size:
        return np.zeros(hu.shape, dtype=bool)
    body = (sizes >= LEAST_SHARE * sizes.max())[labels]
    parts, _ = label(~_grown(body, reach) & ~padding)
    edge = _grown(padding, 1)
    edge[[0, -1], :] = edge[:, [0, -1]] = True
    outside = np.zeros(hu.shape, dtype=bool)
    for part in np.unique(parts[edge & (parts > 0)]):
        if np.median(hu[edge & (parts == part)]) < AIR_HU:
            outside |= parts == part
    return ~(_grown(outside, reach) | padding) | body


def _shrunk(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where the mask holds in the whole square of ``2 * reach + 1`` pixels; beyond the edge it holds everywhere."""
    return binary_erosion(mask, _SQUARE, iterations=reach, border_value=1)


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where the mask holds anywhere in the square of ``2 * reach + 1`` pixels."""
    return binary_dilation(mask, _SQUARE, iterations=reach)
