"""Detect a body that extends beyond the field of view: line integrals and simulated noise are then too small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter, uniform_filter

from ct_cncl.transforms.anatomy.regions import padding_mask

_DENSE_HU = -300.0
"""Fat, soft tissue and bone lie above; lung, clothes, and the foam of tables and cushions lie below."""
SOLID_MM = 20.0
"""Side of the squares at the edge of the field that must be filled by the body: shells and rails of tables are thinner."""
NOTICEABLE = 0.01
"""Share of a slice's edge above which the body counts as cut off: less is a fold of skin that touches the edge."""


def truncated_share(hu_slice: np.ndarray, pixel_mm: tuple[float, float]) -> float:
    """Share of the edge of the field of view at which the body is cut off.

    Squares of 20 mm that just fit into the field are examined along its edge, be it that of the image or of the scanner's
    padding. The share is that of the squares filled with body (above -300 HU) to more than 95 %.

    Args:
        hu_slice: (x, y), HU.
        pixel_mm: (dx, dy) in mm.

    Returns:
        0 to 1; 0 for slices smaller than one such square.

    Raises:
        ValueError: unless ``hu_slice`` has two axes.

    >>> body = np.where(np.hypot(*np.mgrid[-39.5:40, -39.5:40]) < 30, 40.0, -1000.0)
    >>> truncated_share(body, (5.0, 5.0)), truncated_share(body[:40], (5.0, 5.0)) > 0.2
    (0.0, True)
    """
    hu = np.asarray(hu_slice)
    if hu.ndim != 2:
        raise ValueError(f"Expected one slice (x, y) but got shape {hu.shape}. Call it slice by slice.")
    side = float(np.sqrt(pixel_mm[0] * pixel_mm[1]))
    window = 2 * round(SOLID_MM / side / 2) + 1
    field = ~padding_mask(hu)
    if window > min(hu.shape):
        return 0.0
    fits = _whole_windows(field, window)
    edge = fits & ~_whole_windows(fits, 3)
    if not edge.any():
        return 0.0
    solid = uniform_filter((hu > _DENSE_HU).astype(np.float64), window, mode="mirror") > 0.95
    return float(solid[edge].mean())


def _whole_windows(mask: np.ndarray, window: int) -> np.ndarray:
    """Centres of the windows that lie wholly in the image and in ``mask``."""
    return minimum_filter(mask, window, mode="constant", cval=0)


def truncation_warning(hu_volume: np.ndarray, pixel_mm: tuple[float, float]) -> str:
    """One sentence for the provenance if the body is cut along more than 1 % of a slice's edge; otherwise empty.

    Args:
        hu_volume: (x, y, z), HU.
        pixel_mm: (dx, dy) in mm.

    >>> truncation_warning(np.full((40, 40, 2), 40.0), (5.0, 5.0))
    'field of view smaller than the body: it is cut in 2 of 2 slices, along up to 100 % of the edge; line integrals and noise are too small there'
    """
    return warning_of([truncated_share(hu_volume[..., z], pixel_mm) for z in range(hu_volume.shape[2])])


def warning_of(truncated: Sequence[float]) -> str:
    """As :func:`truncation_warning`, but from the :func:`truncated_share` of each slice."""
    shares = np.array(truncated)
    cut = shares > NOTICEABLE
    if not cut.any():
        return ""
    return (
        f"field of view smaller than the body: it is cut in {cut.sum()} of {shares.size} slices, along up to "
        f"{100 * shares.max():.0f} % of the edge; line integrals and noise are too small there"
    )
