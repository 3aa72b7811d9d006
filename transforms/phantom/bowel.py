"""Stomach, colon and loops of small bowel, with wall, content, and gas above liquid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.liver import liver_distance
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import Ellipsoid, rotation, triple
from ct_cncl.transforms.phantom.tissues import TISSUES, Array, Field
from ct_cncl.transforms.phantom.trees import scatter, supply
from ct_cncl.transforms.phantom.trunk import diaphragm, outside_wall, spine_depth
from ct_cncl.transforms.phantom.tubes import Tubes, coverage, join


@dataclass(frozen=True)
class Loop:
    """A stretch of bowel: shape, wall thickness in mm, HU of the content, fraction of gas (0 to 1), lumpiness in HU."""

    shape: Ellipsoid
    wall: float
    content: float
    gas: float
    lumps: float


@dataclass(frozen=True)
class Bowel:
    """All loops in the order in which they are painted, and the mesenteric vessels in picture coordinates."""

    loops: tuple[Loop, ...]
    vessels: Tubes


def draw_bowel(rng: np.random.Generator, patient: Patient) -> Bowel:
    """Draw the stomach, the colon along the flanks and across the front, and the small bowel in between."""
    front = patient.belly
    loops = [*_small_bowel(rng, front), *_colon(rng, front)]
    stomach = patient.organs["stomach"]
    loops.append(Loop(stomach, 3.5, float(rng.uniform(15, 60)), float(rng.uniform(0.05, 0.6)), 8.0))

    def inside(points: Field) -> Field:
        return outside_wall(points[:, 0], points[:, 1], points[:, 2], patient) + 8

    low, high = np.array([-110, -80 - front, -260]), np.array([110, 5, -100])
    trunks = [np.array([4.0, -26.0, z]) for z in (-105.0, -150.0, -195.0)]
    vessels = join(
        *(supply(rng, trunk, scatter(rng, 90, low, high, inside), tip=0.6, thickest=3.0) for trunk in trunks)
    )
    return Bowel(tuple(loops), vessels.in_picture(patient.frame))


def _small_bowel(rng: np.random.Generator, front: float) -> list[Loop]:
    loops = []
    for _ in range(120):
        radius = float(rng.uniform(8, 14))
        u, z = rng.normal(20, 44), rng.uniform(-250, -92)
        v = rng.uniform(-70 - 0.9 * front, 4) + 0.002 * u * u
        radii = (radius * rng.uniform(1.0, 2.3), radius, radius * rng.uniform(1.0, 1.6))
        shape = Ellipsoid((float(u), float(v), float(z)), radii, rotation(rng.uniform(0, np.pi), rng.normal(0, 0.6)))
        gas = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.15 else 0.0
        loops.append(Loop(shape, float(rng.uniform(1.8, 3)), float(rng.uniform(12, 48)), gas, 6.0))
    return loops


def _colon(rng: np.random.Generator, front: float) -> list[Loop]:
    across = -74 - 0.9 * front
    course = np.array(
        [
            [-96, 12, -260],
            [-98, 14, -190],
            [-92, 2, -150],
            [-64, across + 18, -138],
            [-20, across, -142],
            [30, across, -136],
            [70, across + 14, -118],
            [98, -6, -88],
            [104, 22, -104],
            [106, 26, -170],
            [100, 20, -260],
        ],
    )
    course = course + rng.normal(size=course.shape) * [5, 3, 9]
    place = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(course, axis=0), axis=1))])
    loops = []
    for s in np.arange(0, place[-1], 21.0):
        centre = triple(np.interp(s, place, course[:, k]) + rng.normal(0, 2.5) for k in range(3))
        radius = float(rng.uniform(14, 21))
        radii = (radius * rng.uniform(0.9, 1.3), radius * rng.uniform(0.85, 1.1), radius * rng.uniform(0.9, 1.2))
        gas = float(np.clip(rng.normal(0.45, 0.3), 0, 1)) if rng.random() < 0.75 else 0.0
        shape = Ellipsoid(centre, radii, rotation(rng.uniform(0, np.pi)))
        loops.append(Loop(shape, float(rng.uniform(1.6, 2.6)), float(rng.uniform(10, 60)), gas, 45.0))
    return loops


def paint_bowel(canvas: Canvas, patient: Patient, bowel: Bowel) -> None:
    """Paint all loops that the slice cuts, and the vessels of the mesentery in the fat between them."""
    if canvas.z > 20:
        return
    back = spine_depth(canvas.z)
    if canvas.z < -80:
        share = coverage(canvas, bowel.vessels, thickness=2.5) * (canvas.labels == TISSUES["fat"])
        share = share * np.clip((back - 22 - canvas.v) / 6, 0, 1)
        canvas.blend(share.astype(np.float32), patient.density["vein"] * 0.9, "vessel")
    for loop in bowel.loops:
        if abs(canvas.z - loop.shape.centre[2]) < loop.shape.reach:
            _paint_loop(canvas, patient, loop)


def _paint_loop(canvas: Canvas, patient: Patient, loop: Loop) -> None:
    shape = loop.shape
    local = canvas.around(shape.centre[0], shape.centre[1], shape.reach + 6)
    if local.hu.size == 0:
        return
    noise = local.noise
    big = min(1.0, min(shape.radii) / 20)
    distance = shape.distance(local.u, local.v, local.z) + 2.6 * big * noise["a"] + 1.7 * big * noise["c"]
    distance = np.maximum(distance, _taken(local, patient, stomach=shape is patient.organs["stomach"]))
    if distance.min() > 0:
        return
    local.paint(distance - 0.9, patient.density["fat"] + 5, "fat")
    local.paint(distance, patient.density["wall"] + 3 * noise["cloud"], "bowel")
    lumen = distance + loop.wall + 0.8 * np.abs(noise["streak"])
    lumps = loop.lumps * np.clip(noise["cloud"], -1.5, 1.5)
    # bubbles in lumpy content
    bubbles = np.clip((noise["cloud"] + 0.5 * noise["streak"] - 1.35) * 900, 0, 700) * (loop.lumps > 30)
    local.paint(lumen, loop.content + lumps - bubbles, "bowel")
    if loop.gas > 0:
        extent = max(shape.radii[0], shape.radii[1])
        level = local.v - np.float32(shape.centre[1] - extent * (1 - 1.7 * loop.gas)) + 0.5 * noise["c"]
        local.paint(np.maximum(lumen, level), -965.0, "gas")


def _taken(local: Canvas, patient: Patient, *, stomach: bool) -> Array:
    """Signed distance to the space left by wall, diaphragm and solid organs; the stomach may dent the liver."""
    u, v, z = local.u, local.v, local.z
    room = outside_wall(u, v, z, patient) + 5
    for name in ("kidney_right", "kidney_left", "spleen"):
        organ = patient.organs[name]
        if abs(z - organ.centre[2]) < organ.reach:
            room = np.maximum(room, 4.0 - organ.distance(u, v, z))
    if not stomach:
        room = np.maximum(room, 3.0 - liver_distance(u, v, z, patient, 3.0 * local.noise["a"]))
    return np.maximum(room, 0.75 * (z - diaphragm(u, v) + 3.5)).astype(np.float32)
