"""Where the patient is in a CT slice, with everything inside: lungs, bowel gas, airways."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.common.compiled import compiled
from ct_cncl.transforms.regions import box_mean, padding_mask

TISSUE_HU = -500.0
"""Above it a pixel is tissue or table, below it air or lung."""
AIR_HU = -940.0
"""Air outside is below it, lung above: -1000 and -950 to -700 HU."""
LEAST_SHARE = 0.05
"""Parts of the body (legs, arms) that are smaller than this share of the largest one are taken for something else."""
LEAST_AREA = 0.005
"""A largest part below this share of the slice is no patient."""
OPENING = 0.02
"""Twice this share of the slice's smaller side, about 12 mm, is how thin a table top or a tube may be to be left out."""
# See ct_cncl.transforms.physics._kernels: a cache under another module name would break the import.
CACHE = __name__.startswith("ct_cncl.")


def body_mask(hu_slice: np.ndarray) -> np.ndarray:
    """Pixels of the patient, air inside included; without table, tubes, clothes, outside air and the scanner's padding.

    Pixels above :data:`TISSUE_HU` after a 3 x 3 mean, freed of what is thin by an opening; of the connected parts, the
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
    tissue = (box_mean(np.clip(hu, -1000.0, 0.0), 3) > TISSUE_HU) & ~padding
    solid = _grown(_shrunk(tissue, reach), reach) & tissue
    labels = connected_parts(solid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < LEAST_AREA * hu.size:
        return np.zeros(hu.shape, dtype=bool)
    body = (sizes >= LEAST_SHARE * sizes.max())[labels]
    parts = connected_parts(~_grown(body, reach) & ~padding)
    edge = _grown(padding, 1)
    edge[[0, -1], :] = edge[:, [0, -1]] = True
    outside = np.zeros(hu.shape, dtype=bool)
    for part in np.unique(parts[edge & (parts > 0)]):
        if np.median(hu[edge & (parts == part)]) < AIR_HU:
            outside |= parts == part
    return ~(_grown(outside, reach) | padding) | body


def _shrunk(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where the mask holds in the whole square of ``2 * reach + 1`` pixels, beyond the edge mirrored."""
    return box_mean(mask.astype(np.float64), 2 * reach + 1) > 1 - 0.5 / (2 * reach + 1) ** 2


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """True where the mask holds anywhere in the square of ``2 * reach + 1`` pixels."""
    return ~_shrunk(~mask, reach)


def connected_parts(mask: np.ndarray) -> np.ndarray:
    """Number of the connected part of each pixel, over the four neighbours.

    Args:
        mask: bool (x, y).

    Returns:
        int32 (x, y): 0 where the mask is False, parts from 1 on in the order of their first pixels.

    >>> connected_parts(np.array([[True, False, True], [True, False, False]]))
    array([[1, 0, 2],
           [1, 0, 0]], dtype=int32)
    """
    return _connected_parts(np.ascontiguousarray(mask, dtype=np.bool_))


@compiled(cache=CACHE)
def _connected_parts(mask: np.ndarray) -> np.ndarray:
    width, height = mask.shape
    labels = np.zeros((width, height), np.int32)
    stack = np.empty((mask.size, 2), np.int32)
    count = 0
    for x0 in range(width):
        for y0 in range(height):
            if not mask[x0, y0] or labels[x0, y0]:
                continue
            count += 1
            labels[x0, y0] = count
            stack[0, 0], stack[0, 1] = x0, y0
            waiting = 1
            while waiting:
                waiting -= 1
                x, y = stack[waiting, 0], stack[waiting, 1]
                for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    i, j = x + dx, y + dy
                    if 0 <= i < width and 0 <= j < height and mask[i, j] and not labels[i, j]:
                        labels[i, j] = count
                        stack[waiting, 0], stack[waiting, 1] = i, j
                        waiting += 1
    return labels
