"""Positions of a scan's slices; this module alone decides when two slices are at the same position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE_MM = 0.05
"""How far apart the corners of two slices at the same position may lie: NIfTI affines are float32, and DICOM positions are rounded."""


_OBLIQUE = 0.25
"""Smallest cosine at which an axis gets a letter: about 15 degrees out of the plane of the other two."""


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """Pixel grid and positions of a scan's slices, in RAS mm.

    Attributes:
        corners: (slices, 3), centre of each slice's first pixel.
        steps: (2, 3), the vectors from one pixel to the next across the columns and down the rows.
        shape: (columns, rows).
        phases: (slices,), number of each slice among those at the same position; 0 for a single one.
    """

    corners: np.ndarray
    steps: np.ndarray
    shape: tuple[int, int]
    phases: np.ndarray

    @classmethod
    def of_volume(cls, affine: np.ndarray, shape: Sequence[int]) -> SliceGrid:
        """The grid of an evenly spaced volume.

        Args:
            affine: (4, 4), voxel to RAS mm.
            shape: (columns, rows, slices).
        """
        corners = affine[:3, 3] + np.arange(shape[2])[:, None] * affine[:3, 2]
        return cls(corners, affine[:3, :2].T.copy(), (shape[0], shape[1]), np.zeros(shape[2], dtype=int))

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Pixel size in mm, across the columns and down the rows."""
        return float(np.linalg.norm(self.steps[0])), float(np.linalg.norm(self.steps[1]))

    @property
    def sides(self) -> tuple[str, str, str, str]:
        """Letters of the patient's sides at the left, top, right and bottom of the image, as viewers show them.

        >>> SliceGrid.of_volume(np.diag([-0.7, -0.7, 3.0, 1.0]), (512, 512, 20)).sides
        ('R', 'A', 'L', 'P')
        """
        across, down = self.steps
        return direction_letters(-across), direction_letters(-down), direction_letters(across), direction_letters(down)

    def position(self, number: int) -> str:
        """Distance of a slice from the origin along the normal, with the letter of its direction, for display.

        >>> SliceGrid.of_volume(np.diag([-0.7, -0.7, 3.0, 1.0]), (512, 512, 20)).position(5)
        'S 15.0 mm'
        """
        normal = np.cross(*self.steps)
        along = float(self.corners[number] @ normal / np.linalg.norm(normal))
        return f"{direction_letters(normal if along >= 0 else -normal)} {abs(along):.1f} mm"

    def same_plane(self, other: SliceGrid) -> bool:
        """Whether the slices of both grids have the same size, pixel size and orientation."""
        extent = np.array(self.shape)[:, None]
        return self.shape == other.shape and bool((np.abs(self.steps - other.steps) * extent).max() <= 2 * TOLERANCE_MM)

    def partners(self, other: SliceGrid) -> list[int | None]:
        """For each slice of this scan, the number of the slice of ``other`` at the same position, or None.

        Several slices at the same position (perfusion or cardiac phases) are paired in the order of their phases. If one scan
        has more of them than the other, the pairing is unknown and all of them get None.
        """
        if not self.same_plane(other):
            return [None] * len(self.corners)
        return [self._partner(number, other) for number in range(len(self.corners))]

    def _partner(self, number: int, other: SliceGrid) -> int | None:
        ours, theirs = self.at(self.corners[number]), other.at(self.corners[number])
        if len(ours) != len(theirs):
            return None
        return int(theirs[ours.tolist().index(number)])

    def at(self, corner: np.ndarray) -> np.ndarray:
        """Numbers of the slices whose first pixel lies at ``corner``, (3,) RAS mm, in the order of their phases."""
        here = np.flatnonzero(np.linalg.norm(self.corners - corner, axis=1) <= TOLERANCE_MM)
        return here[np.argsort(self.phases[here], kind="stable")]

    def same_slices(self, other: SliceGrid) -> bool:
        """Whether both hold the same slices in the same order."""
        return self.partners(other) == list(range(len(self.corners))) and len(self.corners) == len(other.corners)


def direction_letters(direction: np.ndarray) -> str:
    """Letters of the patient's directions in which a vector points, the main direction first.

    Args:
        direction: (3,) RAS, of any length but 0.

    >>> direction_letters(np.array([-1.0, 0.1, 0.0])), direction_letters(np.array([0.0, -0.8, 0.6]))
    ('L', 'PS')
    """
    unit = direction / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda axis: -abs(unit[axis]))
    return "".join("RAS"[axis] if unit[axis] > 0 else "LPI"[axis] for axis in order if abs(unit[axis]) >= _OBLIQUE)
