"""Mask of the patient in a CT slice, including everything inside: lungs, bowel gas, airways."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, label, uniform_filter

from ct_cncl.transforms.anatomy.regions import padding_mask

BODY_HU = -500.0
"""Above this value a pixel is tissue or table, below it air or lung."""
AIR_HU = -940.0
"""Outside air (-1000 HU) is below this value; lung (about -950 to -700 HU) is nearly all above it."""
LEAST_SHARE = 0.05
"""Connected parts (legs, arms) smaller than this fraction of the largest part are not taken for the body."""
LEAST_AREA = 0.005
"""If the largest part covers less than this fraction of the slice, the slice shows no patient."""
OPENING = 0.02
"""Thickest table top or tube that the opening removes, as a fraction of the slice's shorter side (7 mm at 0.7 mm pixels)."""
_SQUARE = np.ones((3, 3), dtype=bool)


def body_mask(hu_slice: np.ndarray) -> np.ndarray:
    """Mask of the patient, including the air inside, without table, tubes, clothes, outside air and the scanner's padding.

    1. Pixels above :data:`BODY_HU` after a 3 x 3 mean are tissue; an opening removes thin structures.
    2. The largest connected part is the body, and so are parts of at least :data:`LEAST_SHARE` of its size.
    3. Whatever outside air cannot reach through gaps wider than the opening belongs to the body. A region that touches the
       edge of the field of view is outside air if its median there is below :data:`AIR_HU`; a lung that the edge cuts is not.

    Gas under skin that is thinner than the opening counts as outside.

    Args:
        hu_slice: (x, y), HU, of any scan: noise and padding do no harm.

    Returns:
        bool (x, y), True on the patient; all False if the slice shows none.

    Raises:
        ValueError: the slice is not two-dimensional or has a side below 3.

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
    # Clip before the mean, so that metal and padding do not spread to neighbouring pixels.
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
    """True where the mask is True in the whole square of ``2 * reach + 1`` pixels; beyond the edge it counts as True."""
    return binary_erosion(mask, _SQUARE, iterations=reach, border_value=1)


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where the mask is True anywhere in the square of ``2 * reach + 1`` pixels."""
    return binary_dilation(mask, _SQUARE, iterations=reach)
