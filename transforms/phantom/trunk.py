"""The inner wall of the trunk and the diaphragm: everything else is placed relative to these two surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import Coordinates, smooth_union, smoothstep
from ct_cncl.transforms.phantom.tissues import Array, Field

# Height, half width, depth to the front and to the back of the inner wall, nominal mm.
_WALL = np.array(
    [
        [-260, 116, 78, 66],
        [-140, 126, 86, 70],
        [-60, 134, 92, 73],
        [20, 134, 90, 76],
        [85, 126, 80, 76],
        [130, 112, 66, 72],
        [165, 93, 52, 66],
        [200, 66, 34, 52],
        [225, 40, 20, 34],
        [245, 18, 10, 16],
    ],
    dtype=np.float32,
)
_SPINE = np.array([[-260, 24], [-180, 30], [-100, 38], [0, 44], [100, 47], [170, 38], [240, 24]], np.float32)


def wall_radii(z: Coordinates, patient: Patient) -> tuple[Any, Any, Any]:
    """Half width, depth to the front and depth to the back of the inner wall at height ``z``, mm."""
    width, front, back = (np.interp(z, _WALL[:, 0], _WALL[:, k]) for k in (1, 2, 3))
    soft = 1 - smoothstep(-70, 10, z)  # below the ribs, visceral fat pushes the wall out
    return width + 0.45 * patient.belly * soft, front + patient.belly * soft, back


def outside_wall(u: Coordinates, v: Coordinates, z: Coordinates, patient: Patient) -> Field:
    """Distance from the inner wall of the trunk along the ray from its middle, mm; negative inside.

    A superellipse in the slice plane, flatter at the back.
    """
    width, front, back = wall_radii(z, patient)
    p = np.abs(u / width)
    q = np.where(np.asarray(v) < 0, np.abs(v / front), np.abs(v / back))
    power = 2.35
    rho = (p**power + q**power + 1e-6) ** (1 / power)
    r = np.hypot(u, v)
    return r - r / rho


def diaphragm(u: Coordinates, v: Coordinates) -> Field:
    """Height z of the diaphragm above (u, v), mm: a right, a left and a middle dome, deep at the back."""
    depth = np.where(np.asarray(v) < 0, 120.0, 84.0)
    slope = 0.35 * np.maximum(v, 0)
    right = 56 * (((u + 62) / 84) ** 2 + ((v + 5) / depth) ** 2) + slope
    left = 14 + 52 * (((u - 62) / 84) ** 2 + ((v + 2) / depth) ** 2) + slope
    middle = 16 + 50 * ((u / 90) ** 2 + ((v + 50) / 100) ** 2) + slope
    return -smooth_union(smooth_union(right, left, 14), middle, 14)


def spine_depth(z: float) -> float:
    """Position v of the centre of the vertebral bodies at height ``z``, mm."""
    return float(np.interp(z, _SPINE[:, 0], _SPINE[:, 1]))


def angle(u: Array, v: Array) -> Array:
    """Angle about the trunk's axis in rad, 0 in front, pi at the back, the same on both sides."""
    return np.arctan2(np.abs(u), -v)


def around_trunk(phi: Array, knots: Sequence[tuple[float, float]]) -> Array:
    """A smooth function of the angle ``phi`` that follows the ``knots`` (rad, value)."""
    places = np.linspace(0, np.pi, 181)
    at, values = zip(*knots, strict=True)
    line = np.interp(places, at, values)
    line = uniform_filter1d(line, 21, mode="mirror")
    return np.interp(phi, places, line).astype(np.float32)
