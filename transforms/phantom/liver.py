"""The liver with its vessel trees, and the gall bladder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import smooth_intersection, smooth_union
from ct_cncl.transforms.phantom.tissues import TISSUES, Array, Field
from ct_cncl.transforms.phantom.trees import scatter, supply
from ct_cncl.transforms.phantom.trunk import diaphragm, outside_wall
from ct_cncl.transforms.phantom.tubes import Tubes, coverage


def liver_distance(u: Field, v: Field, z: Field | float, patient: Patient, wave: Array | float = 0.0) -> Field:
    """Signed distance to the liver in mm, negative inside, on the grid of one slice or at points."""
    right = patient.organs["liver_right"].distance(u, v, z)
    left = patient.organs["liver_left"].distance(u, v, z)
    lobes = smooth_union(right, left, 22.0) + wave
    inside = outside_wall(u, v, z, patient) + 2.0
    ceiling = 0.75 * (np.asarray(z) - diaphragm(u, v) + 2.6)
    return smooth_intersection(smooth_intersection(lobes, inside, 8.0), ceiling, 6.0)


@dataclass(frozen=True)
class LiverTrees:
    """Portal and hepatic veins in picture coordinates."""

    portal: Tubes
    hepatic: Tubes


def grow_liver_trees(rng: np.random.Generator, patient: Patient) -> LiverTrees:
    """Grow portal branches from the hilum, and hepatic veins from the vena cava below the diaphragm."""

    def inside(points: Field) -> Field:
        return liver_distance(points[:, 0], points[:, 1], points[:, 2], patient) + 5.0

    low, high = np.array([-140, -95, -185]), np.array([90, 85, 5])

    def tree(root: tuple[float, float, float], count: int) -> Tubes:
        targets = scatter(rng, count, low, high, inside)
        return supply(rng, np.array(root), targets, tip=0.75, thickest=6.0).in_picture(patient.frame)

    return LiverTrees(portal=tree((-38, -14, -74), 150), hepatic=tree((-27, 2, -14), 110))


def paint_liver(canvas: Canvas, patient: Patient, trees: LiverTrees) -> tuple[Array, Array] | None:
    """Paint the liver and its vessels.

    Returns:
        Signed distance to the liver in nominal mm and HU of the plain parenchyma, each (columns, rows); None if the slice
        holds no liver.
    """
    wave = 3.0 * canvas.noise["a"] + 1.0 * canvas.noise["c"]
    distance = liver_distance(canvas.u, canvas.v, canvas.z, patient, wave).astype(np.float32)
    if distance.min() > 0:
        return None
    hu = patient.density["liver"]
    plain = np.float32(hu) + 2.0 * canvas.noise["cloud"] + 1.6 * canvas.noise["grain"] + 1.2 * canvas.noise["b"]
    cover = canvas.paint(distance, plain, "liver")
    blood = patient.density["vein"]
    inside = cover * np.clip(-distance / 3, 0, 1)
    for tubes in (trees.portal, trees.hepatic):
        vessel = coverage(canvas, tubes, thickness=1.6) * inside
        canvas.blend(vessel, blood, None)
        canvas.labels[(vessel >= 0.5) & (canvas.labels == TISSUES["liver"])] = TISSUES["vessel"]
    return distance, plain


def paint_gall_bladder(canvas: Canvas, patient: Patient) -> None:
    """Paint the gall bladder: a thin wall around bile."""
    organ = patient.organs["gall_bladder"]
    if abs(canvas.z - organ.centre[2]) > organ.reach + 4:
        return
    local = canvas.around(organ.centre[0], organ.centre[1], organ.reach + 5)
    distance = organ.distance(local.u, local.v, local.z) + 1.0 * local.noise["a"]
    local.paint(distance - 1.5, patient.density["wall"], "bile")
    local.paint(distance, 8.0 + local.noise["cloud"], "bile")
