"""The body wall from skin to ribs: subcutaneous fat with strands, breasts, muscles in layers."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import ellipse, smooth_union, smoothstep
from ct_cncl.transforms.phantom.tissues import TISSUES, Array
from ct_cncl.transforms.phantom.trunk import around_trunk, diaphragm, spine_depth

# Thickness of the muscular wall in mm by angle, at three heights.
_THICKNESS: dict[float, list[tuple[float, float]]] = {
    -60.0: [(0, 12), (0.5, 13), (0.9, 20), (1.57, 23), (2.1, 25), (2.6, 32), (3.14, 27)],
    30.0: [(0, 15), (0.5, 17), (1.0, 17), (1.57, 22), (2.1, 28), (2.6, 31), (3.14, 27)],
    120.0: [(0, 19), (0.5, 27), (1.0, 38), (1.57, 50), (2.1, 54), (2.6, 42), (3.14, 31)],
}
RIB_LAYER = (0.8, 9.0)
"""Inner and outer bound of the layer of ribs and intercostal muscles, mm outside the inner wall."""


def fat_value(canvas: Canvas, patient: Patient) -> Array:
    """HU of fat with strands: thin bright curves where one random field changes sign, interrupted by another field."""
    noise = canvas.noise
    strand = np.exp(-((noise["strand"] / 0.07) ** 2)) * np.clip(noise["c"] * 0.6 + 0.15, 0, 1)
    return np.float32(patient.density["fat"]) + 4 * noise["cloud"] + 55 * strand


def muscle_value(canvas: Canvas, patient: Patient) -> Array:
    """HU of muscle with streaks of fat."""
    noise = canvas.noise
    streak = np.exp(-((noise["streak"] / 0.16) ** 2)) * np.clip(0.35 + 0.5 * noise["b"], 0, 1)
    return np.float32(patient.density["muscle"] + 3) + 3 * noise["cloud"] - np.float32(75 * patient.streaks) * streak


def outer_muscle(phi: Array, z: float, patient: Patient) -> Array:
    """Thickness of the muscular wall in mm at the angles ``phi`` and the height ``z``."""
    heights = list(_THICKNESS)
    layers = [around_trunk(phi, _THICKNESS[h]) for h in heights]
    up = float(smoothstep(heights[0], heights[1], z))
    top = float(smoothstep(heights[1], heights[2], z))
    mixed = (1 - up) * layers[0] + (up - top) * layers[1] + top * layers[2]
    return mixed * np.float32(0.4 + 0.6 * patient.muscle)


def skin_distance(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> tuple[Array, Array]:
    """Signed distance to the skin, and the part of it that is breast, mm."""
    belly = 1 - float(smoothstep(-90, 0, canvas.z))
    front, side, back = 0.75 + 0.35 * belly, 0.85 + 0.35 * belly, 0.7
    knots = [(0, front - 0.1), (0.35, front), (0.9, 1.0), (1.6, side), (2.3, 1.05), (2.8, back), (3.14, back * 0.7)]
    fat = np.float32(patient.fat) * around_trunk(phi, knots) + 2.5
    fat = fat * (1 + 0.035 * canvas.noise["a"])
    breast = np.zeros_like(t)
    if patient.female:
        size = (16 + 0.75 * patient.fat) * np.exp(-(((canvas.z - 62) / 38) ** 2))
        breast = size * np.exp(-(((phi - 0.68) / 0.34) ** 2)).astype(np.float32)
    return t - outer_muscle(phi, canvas.z, patient) - fat - breast, breast


def paint_outline(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> None:
    """Paint the skin, everything inside it as fat, and breast tissue."""
    distance, breast = skin_distance(canvas, patient, t, phi)
    fat = fat_value(canvas, patient)
    canvas.paint(distance, 25.0 + 5 * canvas.noise["grain"], "skin")
    canvas.paint(distance + 1.9, fat, "fat")
    if breast.max() > 6:
        gland = np.clip(canvas.noise["streak"] * 0.5 + canvas.noise["c"] * 0.5 + 0.3, 0, 1)
        depth = np.clip(-(distance + 7) / 8, 0, 1) * np.clip((breast - 8) / 10, 0, 1)
        canvas.blend(gland * depth * 0.9 * (canvas.labels == TISSUES["fat"]), 35.0, None)


def paint_muscles(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> None:
    """Paint the muscles of the wall, in bands that taper at their ends."""
    distance = _bands(canvas, patient, t, phi)
    for sheet in _back_muscles(canvas, patient):
        distance = np.minimum(distance, sheet)
    distance = np.maximum(distance, t - outer_muscle(phi, canvas.z, patient))
    distance = np.maximum(distance, 0.3 - t) + 0.5 * canvas.noise["c"]
    canvas.paint(distance, muscle_value(canvas, patient), "muscle")


def _bands(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> Array:
    """Signed distance to the flat muscles, mm."""
    # (middle angle and half width in rad, distance from the inner wall and thickness in mm)
    z, strong = canvas.z, patient.muscle
    chest = float(smoothstep(-30, 40, z))
    high = float(smoothstep(50, 125, z))
    low = 1 - float(smoothstep(-60, 0, z))
    bands = [(1.75, 0.75, 10.5, (11 + 14 * high) * strong), (2.8, 0.5, 23.0, 5.0 * strong)]
    if chest > 0.1:
        bands += [(0.72, 0.55, 10.5, (3 + 5 * chest + 8 * high) * strong * (0.8 if patient.female else 1.0))]
    if high > 0.05:
        bands += [(2.1, 0.55, 11.5, 15 * high), (2.15, 0.5, 32.0, 17 * high), (1.25, 0.3, 30.0, 14 * high)]
        bands += [(0.8, 0.42, 22.0, 9 * high)]
    if low > 0.1:
        bands += [(1.35, 0.98, 7.8, 6.2 * strong * low), (1.35, 0.93, 15.2, 6.5 * strong * low)]
        bands += [(0.235, 0.225, 0.5, 10 * strong * low)]
    wave = 1.3 * canvas.noise["a"] + 0.7 * canvas.noise["c"]
    distance = _intercostal(canvas, t, phi)
    for middle, half_width, inner, thick in bands:
        place = (phi - np.float32(middle)) / np.float32(half_width)
        height = np.float32(thick) * np.sqrt(np.clip(1 - place * place, 0, 1))
        sheet = np.abs(t + wave - np.float32(inner + thick / 2)) - height / 2
        distance = np.minimum(distance, np.where(np.abs(place) < 1, sheet, np.float32(5)))
    return distance


def _intercostal(canvas: Canvas, t: Array, phi: Array) -> Array:
    """The layer between the ribs; below them it continues as the innermost abdominal muscle."""
    inner, outer = RIB_LAYER
    thick = np.float32(0.5 * (outer - inner) - 0.6)
    margin = around_trunk(phi, [(0, 0), (0.5, -30), (1.0, -90), (1.57, -150), (3.14, -150)])
    ribless = np.clip((margin - canvas.z) / 25, 0, 1)
    gap = np.where(phi < 0.42, 9 * ribless, 2.2 * ribless)  # the layer is absent behind the rectus muscle
    return np.abs(t - np.float32(0.5 * (inner + outer)) + gap * 0.3) - thick + gap


def _back_muscles(canvas: Canvas, patient: Patient) -> list[Array]:
    """Signed distances to the long muscles on either side of the spine."""
    z, strong = canvas.z, patient.muscle
    low = 1 - float(smoothstep(-110, -20, z))
    back = spine_depth(z)
    wave = 1.6 * canvas.noise["b"]
    side = np.abs(canvas.u)
    erector = ellipse(side, canvas.v, (28 + 6 * low, back + 42), ((20 + 9 * low) * strong, 15 + 4 * low), 0.1) + wave
    deep = ellipse(side, canvas.v, (11, back + 34), (10, 17)) + 0.6 * wave
    # a strip of fat separates the two
    return [np.maximum(erector, 1.0 - deep), deep]


def paint_deep_muscles(canvas: Canvas, patient: Patient, t: Array) -> None:
    """Paint the muscles inside the wall: diaphragm with its crura, psoas and quadratus lumborum."""
    if canvas.z < 5:
        dome = np.abs(0.75 * (canvas.z - diaphragm(canvas.u, canvas.v))) - 1.1
        canvas.paint(np.maximum(dome, t).astype(np.float32), patient.density["muscle"], "muscle", only="fat")
    z, back, value = canvas.z, spine_depth(canvas.z), muscle_value(canvas, patient)
    side = np.abs(canvas.u)
    wave = 1.2 * canvas.noise["c"]
    loin = 1 - float(smoothstep(-125, -85, z))
    if loin > 0.05:
        psoas = ellipse(side, canvas.v, (31, back + 1), (6 + 11 * loin, 8 + 12 * loin), -0.3) + wave
        square = ellipse(side, canvas.v, (54, back + 23), (20 * loin, 3 + 6 * loin), -0.35) + wave
        canvas.paint(smooth_union(psoas, square, 2), value, "muscle")
    crus = (1 - float(smoothstep(-25, 5, z))) * float(smoothstep(-185, -150, z))
    if crus > 0.05:
        right = ellipse(canvas.u, canvas.v, (-13, back - 24), (6.5 * crus + 0.5, 12 * crus), 0.5) + 0.7 * wave
        left = ellipse(canvas.u, canvas.v, (20, back - 18), (4.5 * crus + 0.5, 13 * crus), -0.5) + 0.7 * wave
        canvas.paint(np.minimum(right, left), value, "muscle")
