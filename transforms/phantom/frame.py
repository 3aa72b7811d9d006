"""Conversion between the picture's millimetres and the nominal patient in whose coordinates all anatomy is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.tissues import Array, Field
from ct_cncl.transforms.phantom.waves import Waves, draw_waves


@dataclass(frozen=True)
class PatientFrame:
    """Size, rotation and smooth deformation of one patient.

    Nominal coordinates are (u, v, z) in mm: to the patient's left, backwards, towards the head; u = v = 0 is the middle
    of the trunk, z = 0 the top of the right diaphragm. Picture coordinates are (x, y, height) in mm, in the same directions.

    Attributes:
        scale: picture mm per nominal mm along u, v, z.
        turn: rotation about the patient's long axis, rad.
        shift: (x, y) of the middle of the trunk in the picture, mm.
        warp: two fields that deform x and y.
        warp_mm: their standard deviation in mm.
    """

    scale: tuple[float, float, float]
    turn: float
    shift: tuple[float, float]
    warp: tuple[Waves, Waves]
    warp_mm: float

    @property
    def mean(self) -> float:
        """Picture mm per nominal mm in the slice plane."""
        return float(np.sqrt(self.scale[0] * self.scale[1]))

    @property
    def largest(self) -> float:
        """Largest factor from nominal to picture mm in the slice plane."""
        return max(self.scale[:2])

    def grid(self, x: Array, y: Array, height: float) -> tuple[Array, Array, float]:
        """Nominal u and v, each (len(x), len(y)), and z of the slice at picture coordinates ``x``, ``y``, ``height``."""
        dx = x[:, None] - self.shift[0] + self.warp_mm * self.warp[0].on_grid(x, y, height)
        dy = y[None, :] - self.shift[1] + self.warp_mm * self.warp[1].on_grid(x, y, height)
        c, s = np.cos(self.turn), np.sin(self.turn)
        u, v = (c * dx + s * dy) / self.scale[0], (c * dy - s * dx) / self.scale[1]
        return u.astype(np.float32), v.astype(np.float32), height / self.scale[2]

    def to_picture(self, points: Field) -> Field:
        """Picture coordinates (points, 3) of nominal ``points`` (points, 3), mm, with an approximate inverse deformation."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        dx, dy = points[:, 0] * self.scale[0], points[:, 1] * self.scale[1]
        flat = np.stack(
            [c * dx - s * dy + self.shift[0], s * dx + c * dy + self.shift[1], points[:, 2] * self.scale[2]], axis=1
        )
        back = np.stack([self.warp[0].at(flat), self.warp[1].at(flat)], axis=1) * self.warp_mm
        # one fixed-point step: the deformation must be taken where the point lands, not where it came from
        moved = np.concatenate([flat[:, :2] - back, flat[:, 2:]], axis=1)
        back = np.stack([self.warp[0].at(moved), self.warp[1].at(moved)], axis=1) * self.warp_mm
        return np.concatenate([flat[:, :2] - back, flat[:, 2:]], axis=1)


def draw_frame(rng: np.random.Generator, scale: tuple[float, float, float], shift: tuple[float, float]) -> PatientFrame:
    """Draw the rotation and deformation of a patient of the given size and place."""
    return PatientFrame(
        scale=scale,
        turn=float(np.clip(rng.normal(0, 0.035), -0.09, 0.09)),
        shift=shift,
        warp=(draw_waves(rng, 70, 220, count=20), draw_waves(rng, 70, 220, count=20)),
        warp_mm=float(rng.uniform(2.0, 3.5)),
    )
