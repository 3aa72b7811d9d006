"""Line integrals of a volume's slices, computed once for all realizations of its noise."""

from __future__ import annotations

import numpy as np

from .geometry import Geometry, PixelSize
from .projector import project

LIMIT_BYTES = 1 << 30
"""About 500 slices of 512 x 512; what does not fit is computed again."""


class Projections:
    """Cache for the line integrals of one volume: projection takes half the time of a noise image.

    Args:
        limit_bytes: most memory that the cache takes.

    >>> water = np.full((8, 8), 0.02, dtype=np.float32)
    >>> from .geometry import ParallelBeam
    >>> rays, kept = ParallelBeam(4, 12, 1.0), Projections()
    >>> kept.of(0, water, (1.0, 1.0), rays) is kept.of(0, water, (1.0, 1.0), rays)
    True
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._kept: dict[tuple[int, PixelSize, Geometry], np.ndarray] = {}

    def of(self, index: int, attenuation: np.ndarray, pixel: PixelSize, geometry: Geometry) -> np.ndarray:
        """Line integrals (views, channels) of slice ``index``, read-only.

        Args:
            index: index of the slice in the volume.
            attenuation: (x, y), 1/mm; always the same for one index.
            pixel: (dx, dy) in mm.
            geometry: the rays.
        """
        key = (index, pixel, geometry)
        found = self._kept.get(key)
        if found is None:
            found = project(attenuation, pixel, geometry)
            found.setflags(write=False)
            if sum(each.nbytes for each in list(self._kept.values())) + found.nbytes <= self.limit_bytes:
                self._kept[key] = found
        return found
