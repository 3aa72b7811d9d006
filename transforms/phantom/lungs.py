"""Lungs: their shape, parenchyma, fissures, vessel trees and airways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import smooth_intersection, smooth_union
from ct_cncl.transforms.phantom.tissues import TISSUES, Array, Field
from ct_cncl.transforms.phantom.trees import scatter, supply
from ct_cncl.transforms.phantom.trunk import diaphragm, outside_wall
from ct_cncl.transforms.phantom.tubes import Tubes, coverage, join, polyline

# Half width of the mediastinum between the lungs, from front to back (v, mm).
_BETWEEN = np.array([[-95, 5], [-75, 9], [-58, 20], [-40, 30], [-5, 31], [22, 25], [40, 25], [60, 27], [80, 31]], float)
_CARINA = 114.0
VESSEL_TARGETS = 1200
"""Number of end points of each of the four vessel trees of the lungs."""


def lung_distance(u: Field, v: Field, z: Field | float, patient: Patient, wave: Array | float = 0.0) -> Field:
    """Signed distance to the lungs in mm, negative inside, on the grid of one slice or at points."""
    inside = outside_wall(u, v, z, patient) + 2.0
    floor = 0.75 * (diaphragm(u, v) - z)
    middle = u - 3.0 - 5.0 * np.clip(np.asarray(z) / 100, 0, 1)
    between = np.interp(v, _BETWEEN[:, 0], _BETWEEN[:, 1])
    heart = patient.organs["heart"].distance(u, v, z) - 5.0
    keep_out = smooth_union(np.abs(middle) - between, heart, 6.0)
    lung = smooth_intersection(inside, -keep_out - wave, 7.0)
    return smooth_intersection(lung, floor, 5.0)


@dataclass(frozen=True)
class LungTrees:
    """Tubes in picture coordinates: blood vessels, airway walls and airway lumina."""

    vessels: Tubes
    walls: Tubes
    lumina: Tubes


def grow_lung_trees(rng: np.random.Generator, patient: Patient) -> LungTrees:
    """Grow vessels and airways from both hila to the periphery."""
    vessels, airways = [], [_windpipe()]
    for side in (-1.0, 1.0):
        hilum = np.array([side * 40 + 4, 5.0, 98.0 + 5 * side])

        def inside(points: Field, side: float = side) -> Field:
            lung = lung_distance(points[:, 0], points[:, 1], points[:, 2], patient)
            return np.maximum(lung + 2.0, 4.0 - side * points[:, 0])

        low, high = np.array([min(0.0, side * 140), -95, -95]), np.array([max(0.0, side * 140), 80, 225])
        for shift in ((0.0, -8.0, 6.0), (2.0, 6.0, -16.0)):  # arteries, veins
            targets = scatter(rng, VESSEL_TARGETS, low, high, inside)
            vessels.append(supply(rng, hilum + np.array(shift), targets, tip=0.46, thickest=6.5))
        targets = scatter(rng, 36, low, high, lambda p: inside(p) + 14)
        airways.append(supply(rng, hilum + np.array([0, 1, -6]), targets, tip=0.9, thickest=5.0))
    air = join(*airways)
    wall = Tubes(air.start, air.end, air.r0 * 1.05 + 0.8, air.r1 * 1.05 + 0.8)
    return LungTrees(*(tubes.in_picture(patient.frame) for tubes in (join(*vessels), wall, air)))


def _windpipe() -> Tubes:
    """Trachea and main bronchi."""
    trachea = polyline(np.array([[2, 2, 260], [1, 4, 180], [2, 8, _CARINA]], float), np.array([8.5, 8.5, 8.0]))
    right = polyline(np.array([[2, 8, _CARINA], [-18, 8, 101], [-38, 6, 88]], float), np.array([7.5, 6.5, 5.0]))
    left = polyline(np.array([[2, 8, _CARINA], [24, 10, 98], [44, 10, 92]], float), np.array([7.0, 5.8, 4.8]))
    return join(trachea, right, left)


def paint_lungs(canvas: Canvas, patient: Patient, trees: LungTrees) -> None:
    """Paint parenchyma with texture and gravity gradient, fissures and vessels."""
    distance = lung_distance(canvas.u, canvas.v, canvas.z, patient, 2.5 * canvas.noise["a"]).astype(np.float32)
    if distance.min() > 1:
        return
    mean, gain = patient.lung
    noise = canvas.noise
    value = mean + gain * canvas.v + 9 * noise["cloud"] + 13 * noise["grain"] + 9 * noise["a"]
    # lung tissue is denser in the outermost centimetre at the back, where the patient lies on it
    value = value + np.clip(distance + 9, 0, 9) * np.clip(canvas.v - 25, 0, 40) * np.float32(0.12)
    cover = canvas.paint(distance, np.clip(value, -930, -650).astype(np.float32), "lung")
    inner = np.clip(-(distance + 0.8) / 1.5, 0, 1)
    canvas.blend(_fissures(canvas) * inner, -640.0, None)
    canvas.blend(coverage(canvas, trees.vessels, thickness=2.2) * cover, 30.0, None)


def _fissures(canvas: Canvas) -> Array:
    """Coverage of the thin sheets between the lobes."""
    u, v, z = canvas.u, canvas.v, canvas.z
    wave = 5 * canvas.noise["a"]
    oblique = v + 0.12 * np.abs(u) + 0.62 * (z - 62) - 18 + wave
    sheet = np.exp(-((oblique / 1.3) ** 2))
    level = (z - 70) + 0.15 * (v + 20) + wave
    horizontal = np.where((u < 0) & (oblique < 0), np.exp(-((level / 1.6) ** 2)), 0)
    return (0.5 * np.maximum(sheet, horizontal)).astype(np.float32)


def paint_airways(canvas: Canvas, trees: LungTrees) -> None:
    """Paint trachea and bronchi: a thin wall around gas."""
    if canvas.z < -20:
        return
    wall = coverage(canvas, trees.walls, thickness=0.5)
    in_lung = canvas.labels == TISSUES["lung"]
    canvas.blend(wall * np.where(in_lung, np.float32(0.8), np.float32(1)), 25.0, None)
    canvas.blend(coverage(canvas, trees.lumina, thickness=0.5), -985.0, "airway")
