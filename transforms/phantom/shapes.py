"""Signed distances (mm, negative inside) of the shapes that organs are made of, and functions that join them.

All take coordinates in the patient's nominal frame: u to the patient's left, v backwards, z towards the head, mm.
Coordinates broadcast: they may be the grid of a slice with a single z, or lists of points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.tissues import Array, Field

Coordinates = Field | float


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: ``centre`` and ``radii`` in mm, ``axes`` (3, 3) with one axis per row."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def reach(self) -> float:
        """Radius in mm of the enclosing sphere."""
        return max(self.radii)

    def distance(self, u: Coordinates, v: Coordinates, z: Coordinates) -> Field:
        """First-order signed distance in mm."""
        offset = [np.asarray(c, np.float32) - np.float32(m) for c, m in zip((u, v, z), self.centre, strict=True)]
        rho2: Field = np.float32(0)  # type: ignore[assignment]
        slope2: Field = np.float32(1e-9)  # type: ignore[assignment]
        for axis, radius in zip(self.axes, self.radii, strict=True):
            along = sum(np.float32(w) * o for w, o in zip(axis, offset, strict=True)) / np.float32(radius)
            rho2 = rho2 + along * along
            slope2 = slope2 + (along / np.float32(radius)) ** 2
        rho = np.sqrt(rho2)
        # near the centre both vanish, so the distance is bounded there by the smallest radius
        return np.maximum(rho * (rho - 1) / np.sqrt(slope2), np.float32(-min(self.radii)))


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Three numbers as plain floats."""
    a, b, c = values
    return float(a), float(b), float(c)


def rotation(yaw: float, pitch: float = 0.0) -> tuple[tuple[float, ...], ...]:
    """Axes turned by ``yaw`` in the slice plane, the third tilted by ``pitch`` towards the first; both in rad."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    rows = np.array([[cy, sy, 0.0], [-sy, cy, 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[cp, 0.0, -sp], [0.0, 1.0, 0.0], [sp, 0.0, cp]])
    return tuple(tuple(float(w) for w in row) for row in tilt @ rows)


def capsule(
    u: Field, v: Field, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]
) -> Field:
    """Signed distance to a rod in the slice plane from ``start`` to ``end``, with one of the ``radii`` at each end, mm."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-6), 0, 1)
    radius = radii[0] + (radii[1] - radii[0]) * along
    distance: Field = np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - radius
    return distance


def ellipse(u: Field, v: Field, centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Field:
    """First-order signed distance to an ellipse in the slice plane, its first axis turned by ``turn`` rad."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    du, dv = u - np.float32(centre[0]), v - np.float32(centre[1])
    p, q = (c * du + s * dv) / np.float32(radii[0]), (c * dv - s * du) / np.float32(radii[1])
    rho = np.hypot(p, q)
    slope = np.hypot(p / np.float32(radii[0]), q / np.float32(radii[1])) + np.float32(1e-9)
    return np.maximum(rho * (rho - 1) / slope, np.float32(-min(radii)))


def smooth_union(a: Field, b: Field, blend: float) -> Field:
    """Union of two signed distances, the seam rounded over ``blend`` mm."""
    h = np.maximum(np.float32(blend) - np.abs(a - b), 0) / np.float32(blend)
    return np.minimum(a, b) - h * h * np.float32(blend / 4)


def smooth_intersection(a: Field, b: Field, blend: float) -> Field:
    """Intersection of two signed distances, the edge rounded over ``blend`` mm."""
    return -smooth_union(-a, -b, blend)


def smoothstep(low: float, high: float, value: Coordinates) -> Array:
    """A smooth step: 0 below ``low``, 1 above ``high``."""
    t = np.clip((np.asarray(value, np.float32) - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
