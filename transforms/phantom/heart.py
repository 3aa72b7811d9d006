"""Heart with its chambers, oesophagus and the great vessels of chest and abdomen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import Ellipsoid, triple
from ct_cncl.transforms.phantom.tissues import TISSUES
from ct_cncl.transforms.phantom.trunk import spine_depth
from ct_cncl.transforms.phantom.tubes import Tubes, coverage, join, polyline

Course = Sequence[tuple[float, float, float, float]]
"""(u, v, z, radius) along a vessel, nominal mm."""

_AORTA: Course = [
    (6, -22, 58, 13),
    (-8, -32, 92, 15),
    (-8, -28, 122, 15),
    (-2, -14, 142, 14),
    (12, 4, 147, 13),
    (24, 22, 136, 12.5),
    (27, 33, 110, 12),
    (27, 36, 60, 11.5),
    (22, 26, 10, 11),
    (14, 16, -30, 10.5),
    (9, 9, -90, 10),
    (7, 4, -160, 9),
    (6, 0, -260, 8.5),
]
_CAVA: Course = [
    (-14, -4, -260, 11),
    (-17, 2, -170, 11.5),
    (-20, 6, -110, 12),
    (-27, 6, -50, 13),
    (-25, -8, -5, 14),
    (-22, -14, 18, 14),
]
_UPPER_CAVA: Course = [(-27, -18, 45, 9.5), (-29, -24, 90, 9.5), (-28, -28, 150, 8.5), (-34, -30, 200, 7)]
_LUNG_ARTERY: Course = [(14, -46, 72, 13), (18, -42, 96, 14), (14, -26, 106, 13)]
_LUNG_RIGHT: Course = [(14, -26, 106, 12), (-8, -8, 103, 11), (-30, -6, 100, 9.5), (-46, 2, 96, 7)]
_LUNG_LEFT: Course = [(14, -26, 106, 12), (30, -8, 110, 11), (44, 6, 108, 9), (50, 12, 98, 7)]
_LUNG_VEINS: list[Course] = [
    [(6, 4, 72, 7), (-26, 4, 74, 7), (-48, 0, 76, 5.5)],
    [(12, 6, 72, 7), (36, 6, 74, 7), (52, 4, 78, 5.5)],
]
_NECK: list[Course] = [
    [(-4, -14, 142, 6.5), (-14, -16, 165, 6), (-26, -14, 210, 5)],
    [(8, -4, 147, 5), (14, -2, 175, 4), (18, 0, 220, 4)],
    [(20, 10, 144, 5), (28, 14, 175, 4.5), (48, 8, 215, 4)],
]
_RENAL_ARTERIES: list[Course] = [
    [(8, 6, -112, 3.2), (-18, 22, -118, 3), (-46, 32, -128, 2.6)],
    [(8, 6, -110, 3.2), (38, 28, -116, 2.6)],
]
_RENAL_VEINS: list[Course] = [
    [(-18, 4, -118, 6), (-34, 20, -122, 5), (-48, 32, -128, 4)],
    [(-18, 2, -112, 6), (4, -10, -112, 5), (24, 6, -113, 5), (48, 30, -118, 4)],
]
_GUT_ARTERIES: list[Course] = [
    [(9, -2, -84, 4.5), (8, -16, -86, 4), (18, -20, -84, 3), (60, 16, -70, 2.6)],
    [(8, -2, -98, 4.2), (7, -18, -106, 4), (4, -26, -140, 3.6), (0, -30, -220, 3)],
]
_PORTAL: list[Course] = [
    [(-6, -30, -230, 5), (-8, -28, -150, 6), (-10, -20, -112, 6.5), (-26, -14, -86, 7), (-38, -14, -74, 7)],
    [(-10, -20, -110, 5), (20, -8, -104, 5), (56, 14, -88, 4.5), (80, 30, -72, 4)],
]
_GULLET: Course = [
    (4, 20, 230, 6.5),
    (4, 24, 150, 6.5),
    (8, 22, 100, 7),
    (10, 20, 40, 7.5),
    (16, 6, -5, 7.5),
    (28, -8, -30, 8),
]


@dataclass(frozen=True)
class GreatVessels:
    """Tubes in picture coordinates, grouped by their content."""

    aorta: Tubes
    arteries: Tubes
    veins: Tubes
    lung_arteries: Tubes
    lung_veins: Tubes
    gullet: Tubes
    plaques: Tubes


def _tube(rng: np.random.Generator, knots: Course, size: float, loose: float) -> Tubes:
    course = np.array(knots, float)
    course[:, :3] += loose * rng.normal(size=(len(course), 3)) * [1, 1, 2]
    return polyline(course[:, :3], course[:, 3] * size)


def draw_great_vessels(rng: np.random.Generator, patient: Patient) -> GreatVessels:
    """Draw the courses and calibres of the vessels."""
    size = rng.normal(1.0, 0.08)

    def tubes(courses: Sequence[Course], loose: float = 1.5) -> Tubes:
        return join(*(_tube(rng, course, size, loose) for course in courses)).in_picture(patient.frame)

    trunk = _tube(rng, _AORTA, size * rng.normal(1.0, 0.06), 1.5)
    plaques = []
    for _ in range(int(rng.integers(3, 9)) if patient.calcified else 0):
        k = int(rng.integers(len(trunk.r0)))
        about = rng.uniform(0, 2 * np.pi)
        rim = trunk.r0[k] * np.array([np.cos(about), np.sin(about), 0])
        along = trunk.r0[k] * np.array([np.cos(about + 0.5), np.sin(about + 0.5), 0.2])
        bead = np.full(2, rng.uniform(0.8, 1.9))
        plaques.append(polyline(np.stack([trunk.start[k] + rim, trunk.start[k] + along]), bead))
    nothing = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    return GreatVessels(
        aorta=trunk.in_picture(patient.frame),
        arteries=tubes([*_NECK, *_RENAL_ARTERIES, *_GUT_ARTERIES]),
        veins=tubes([_CAVA, _UPPER_CAVA, *_RENAL_VEINS, *_PORTAL], 2.0),
        lung_arteries=tubes([_LUNG_ARTERY, _LUNG_RIGHT, _LUNG_LEFT], 1.0),
        lung_veins=tubes(_LUNG_VEINS),
        gullet=tubes([_GULLET]),
        plaques=join(*plaques).in_picture(patient.frame) if plaques else nothing,
    )


def paint_great_vessels(canvas: Canvas, patient: Patient, vessels: GreatVessels) -> None:
    """Paint the great vessels and the oesophagus."""
    d = patient.density
    ripple = 2 * canvas.noise["cloud"]
    gullet = coverage(canvas, vessels.gullet, thickness=1.0)
    canvas.blend(gullet, d["wall"] + ripple, "bowel")
    for tubes, hu in (
        (vessels.lung_veins, d["aorta"]),
        (vessels.lung_arteries, d["right_heart"]),
        (vessels.veins, d["vein"]),
        (vessels.arteries, d["aorta"]),
        (vessels.aorta, d["aorta"]),
    ):
        canvas.blend(coverage(canvas, tubes, thickness=0.8), hu + ripple, "vessel")
    canvas.blend(coverage(canvas, vessels.plaques, thickness=0.8), 620.0, None)


def paint_heart(canvas: Canvas, patient: Patient) -> None:
    """Paint the pericardium, the heart muscle and the four chambers."""
    whole = patient.organs["heart"]
    if abs(canvas.z - whole.centre[2]) > whole.reach + 8:
        return
    local = canvas.around(whole.centre[0], whole.centre[1], whole.reach + 10)
    d, wave = patient.density, 2.2 * local.noise["a"] + 1.2 * local.noise["c"]
    muscle = d["myocardium"] + 3 * local.noise["cloud"]
    outer = whole.distance(local.u, local.v, local.z) + wave
    # pericardium: a sac 1 mm thick around the fat on the heart
    rim = np.abs(outer - 3.0) - 0.5
    local.blend(local.soft(rim) * 0.6 * (local.labels == TISSUES["fat"]), 20.0, None)
    local.paint(outer + 2.0 + 1.5 * local.noise["b"], muscle, "heart")
    blood = 2 * local.noise["cloud"]
    for place, radii, which in (
        ((0.32, 0.26, -0.10), (0.50, 0.40, 0.42), "aorta"),  # left ventricle
        ((0.22, -0.50, -0.16), (0.58, 0.30, 0.50), "right_heart"),
        ((-0.58, -0.34, 0.12), (0.32, 0.42, 0.50), "right_heart"),
        ((-0.48, 0.46, 0.38), (0.42, 0.36, 0.40), "aorta"),  # left atrium
    ):
        chamber = _part(whole, place, radii)
        distance = np.maximum(chamber.distance(local.u, local.v, local.z) + 0.6 * wave, outer + 5)
        local.paint(distance, d[which] + blood, "heart")


def _part(whole: Ellipsoid, place: tuple[float, ...], radii: tuple[float, ...]) -> Ellipsoid:
    """An ellipsoid inside another: place and radii as fractions of the radii of ``whole``, along its axes."""
    axes, size = np.array(whole.axes), np.array(whole.radii)
    centre = np.array(whole.centre) + (np.array(place) * size) @ axes
    return Ellipsoid(triple(centre), triple(np.array(radii) * size), whole.axes)


def paint_vessel_bed(canvas: Canvas) -> None:
    """Paint small lymph nodes into the fat around the vessels between the lungs."""
    if canvas.z < 20:
        return
    back = spine_depth(canvas.z)
    local = canvas.around(0, back - 50, 70)
    node = 7.0 - 4.5 * np.abs(local.noise["c"] - 1.9)
    node = np.where(local.labels == TISSUES["fat"], -node + 4.5, np.float32(9))
    local.blend(local.soft(node) * 0.8, 40.0, None)
