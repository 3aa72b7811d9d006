"""Spleen, kidneys, pancreas and adrenal glands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import Ellipsoid, ellipse, smooth_intersection, smooth_union, smoothstep, triple
from ct_cncl.transforms.phantom.trunk import diaphragm, outside_wall
from ct_cncl.transforms.phantom.tubes import Tubes, coverage, join, polyline
from ct_cncl.transforms.phantom.wall import fat_value


@dataclass(frozen=True)
class Glands:
    """Pancreas and adrenal glands in picture coordinates."""

    pancreas: Tubes
    adrenals: Tubes


def draw_glands(rng: np.random.Generator, patient: Patient) -> Glands:
    """Draw the courses of pancreas and adrenal glands."""
    course = np.array(
        [[-24, -14, -132], [-20, -16, -116], [0, -22, -108], [24, -12, -104], [52, 8, -94], [78, 24, -82]]
    )
    course = course + rng.normal(size=course.shape) * [3, 3, 4]
    radii = np.array([11, 12, 9, 8.5, 9, 6.5]) * rng.normal(1, 0.1)
    pancreas = polyline(course, radii)
    limbs = []
    for side in (-1.0, 1.0):
        root = np.array([side * 24 + 4, 16.0, -78.0]) + rng.normal(size=3) * [2, 2, 4]
        tips = np.array([(side * 6, 16, -8), (side * 18, 10, -14), (0, 4, 10)], float)
        limbs += [polyline(np.stack([root, root + tip]), np.array([2.4, 1.6])) for tip in tips]
    return Glands(pancreas.in_picture(patient.frame), join(*limbs).in_picture(patient.frame))


def paint_glands(canvas: Canvas, patient: Patient, glands: Glands) -> None:
    """Paint the pancreas, with a lobulated outline, and the adrenal glands."""
    value = patient.density["pancreas"] + 5 * canvas.noise["cloud"]
    lobules = np.clip(1.15 - 0.9 * np.exp(-((canvas.noise["streak"] / 0.3) ** 2)), 0, 1)
    canvas.blend(coverage(canvas, glands.pancreas) * lobules, value, "pancreas")
    canvas.blend(coverage(canvas, glands.adrenals, thickness=3), value, "pancreas")


def paint_spleen(canvas: Canvas, patient: Patient) -> None:
    """Paint the spleen under the left dome of the diaphragm."""
    organ = patient.organs["spleen"]
    if abs(canvas.z - organ.centre[2]) > organ.reach + 4:
        return
    local = canvas.around(organ.centre[0], organ.centre[1], organ.reach + 15)
    u, v, z = local.u, local.v, local.z
    distance = organ.distance(u, v, z) + 2.0 * local.noise["a"]
    hollow = ellipse(u, v, (organ.centre[0] - 34, organ.centre[1] - 22), (26, 26))
    distance = smooth_intersection(distance, -hollow, 6)
    distance = smooth_intersection(distance, outside_wall(u, v, z, patient) + 3, 5)
    distance = smooth_intersection(distance, 0.75 * (z - diaphragm(u, v) + 2.6), 5).astype(np.float32)
    local.paint(distance, patient.density["spleen"] + 2 * local.noise["cloud"] + 1.5 * local.noise["grain"], "spleen")


def paint_kidney(canvas: Canvas, patient: Patient, side: str) -> None:
    """Paint a kidney in its fat: cortex, pyramids, sinus fat and pelvis, with the hilum towards the middle."""
    organ = patient.organs[f"kidney_{side}"]
    sign = -1.0 if side == "right" else 1.0
    if abs(canvas.z - organ.centre[2]) > organ.reach + 12:
        return
    local = canvas.around(organ.centre[0], organ.centre[1], organ.reach + 14)
    d, noise = patient.density, local.noise
    outer = organ.distance(local.u, local.v, local.z) + 1.3 * noise["a"]
    inner = outside_wall(local.u, local.v, local.z, patient) + 1.0
    local.paint(np.maximum(outer - 5 - 2.5 * noise["b"], inner).astype(np.float32), fat_value(local, patient), "fat")
    # the hilum: fat that enters from the middle and towards the front
    centre = np.array(organ.centre)
    shrink = triple(np.array(organ.radii) * [0.46, 0.5, 0.62])
    offset = centre + np.array([-sign * 9.0, -3.0, 0.0])
    sinus = Ellipsoid(triple(offset), shrink, organ.axes)
    hollow = sinus.distance(local.u, local.v, local.z) + 1.6 * noise["c"]
    door = Ellipsoid((centre[0] - sign * 28, centre[1] - 9, centre[2]), (18, 8.5, 20))
    hollow = smooth_union(hollow, door.distance(local.u, local.v, local.z), 6)
    distance = smooth_intersection(outer, -hollow, 3)
    local.paint(distance, d["cortex"] + 3 * noise["cloud"], "kidney")
    around = np.arctan2(local.v - offset[1], local.u - offset[0])
    pyramids = np.cos(7 * around + 2.0 * noise["a"] + 0.09 * local.z)
    depth = np.maximum(outer + 6.5, 1.5 - hollow)
    local.paint(np.maximum(depth, 4.0 * (0.1 - pyramids)), d["medulla"] + 3 * noise["cloud"], "kidney", only="kidney")
    sinus_pelvis = Ellipsoid(sinus.centre, triple(0.55 * r for r in shrink), organ.axes)
    pelvis = sinus_pelvis.distance(local.u, local.v, local.z) + 3.0 * np.abs(noise["streak"]) - 0.5
    full = float(smoothstep(0, 8, organ.radii[2] * 0.5 - abs(local.z - organ.centre[2])))
    local.blend(local.soft(pelvis) * full, d["pelvis"], None)
