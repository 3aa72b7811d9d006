"""Spine, ribs, breastbone and shoulder blades: a dense shell around marrow."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.patient import Patient
from ct_cncl.transforms.phantom.shapes import capsule, ellipse, smooth_union, smoothstep
from ct_cncl.transforms.phantom.tissues import Array
from ct_cncl.transforms.phantom.trunk import around_trunk, spine_depth, wall_radii
from ct_cncl.transforms.phantom.wall import RIB_LAYER

RIB_PITCH = 26.0
"""Distance between neighbouring ribs along z, mm."""


def paint_bone(canvas: Canvas, patient: Patient, distance: Array, *, cortex_mm: float, marrow: float = 1.0) -> None:
    """Paint a bone: a cortex ``cortex_mm`` thick, and trabecular bone inside it (``marrow`` times the patient's value)."""
    cortex, spongy = patient.bone
    texture = canvas.noise["grain"] * np.float32(0.2 * spongy) + canvas.noise["cloud"] * np.float32(0.1 * spongy)
    canvas.paint(distance, cortex, "bone")
    canvas.paint(distance + cortex_mm, spongy * marrow + texture, "bone")


def paint_ribs(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> None:
    """Paint every rib that crosses the slice: ribs descend from the spine to the front, so each is cut obliquely."""
    inner, outer = RIB_LAYER
    fall = around_trunk(phi, [(0, 92), (0.6, 98), (1.1, 84), (1.57, 62), (2.3, 26), (2.9, 0), (3.14, -4)])
    # height of the slice relative to the rib cage; ribs lie at integer multiples of the pitch
    height = canvas.z + fall + np.float32(patient.rib_shift) + 3.0 * canvas.noise["a"]
    number = np.rint(height / RIB_PITCH)
    off = height - number * RIB_PITCH
    # the lowest rib starts about 90 mm below the diaphragm; the lowest ones end at the side
    first = np.where(phi > 1.45, -4.0, np.where(phi > 1.0, -2.0, np.where(phi > 0.7, 0.0, 1.0)))
    absent = (number < first) | (number > 11) | (phi > 2.95)
    middle = np.float32(0.5 * (inner + outer))
    q = np.hypot(off / np.float32(6.3), (t - middle) / np.float32(0.5 * (outer - inner) - 0.3))
    # ``off`` grows slowly along the rib and t fast across it, so the smaller semi-axis turns q into mm
    distance = np.where(absent, np.float32(9), (q - 1) * np.float32(3.7)).astype(np.float32)
    front = around_trunk(phi, [(0, 1), (0.5, 1), (0.62, 0), (3.14, 0)])
    soft = front > 0.5
    if canvas.z > 150:
        distance = np.where(phi < 0.25, np.float32(9), distance)
    gristle = np.where(soft, distance, np.float32(9))
    canvas.paint(gristle, 95 + 12 * canvas.noise["cloud"], "cartilage")
    paint_bone(canvas, patient, np.where(soft, np.float32(9), distance), cortex_mm=1.5)


def paint_sternum(canvas: Canvas, patient: Patient) -> None:
    """Paint the breastbone between heights of -5 and 168 mm, broader at the top."""
    z = canvas.z
    if not -5 < z < 168:
        return
    front = -float(wall_radii(z, patient)[1]) - 5.5
    half = 15 + 9 * float(smoothstep(110, 150, z)) - 7 * (1 - float(smoothstep(-5, 15, z)))
    local = canvas.around(0, front, 50)
    distance = ellipse(local.u, local.v + 0.006 * local.u**2, (0, front), (half, 6.0)) + 0.7 * local.noise["c"]
    paint_bone(local, patient, distance, cortex_mm=1.3, marrow=0.75)


def paint_scapulae(canvas: Canvas, patient: Patient, t: Array, phi: Array) -> None:
    """Paint the shoulder blades: thin oblique plates behind the ribs, from a height of about 70 mm on."""
    size = float(smoothstep(62, 100, canvas.z))
    if size < 0.05:
        return
    place = (phi - 2.1) / (0.48 * size)
    lift = 27.0 - 5.0 * place + 1.2 * canvas.noise["a"]
    half = 1.7 + 2.6 * np.clip(np.abs(place) - 0.55, 0, 1)
    distance = np.where(np.abs(place) < 1, np.abs(t - lift) - half, np.float32(9)).astype(np.float32)
    paint_bone(canvas, patient, distance, cortex_mm=1.4)


def paint_spine(canvas: Canvas, patient: Patient) -> None:
    """Paint the spine at this height: vertebra or disc, arch, processes and canal."""
    z, back = canvas.z, spine_depth(canvas.z)
    loin = 1 - float(smoothstep(-130, 60, z))
    local = canvas.around(0, back + 15, 75)
    u, v = local.u, local.v
    width, depth = 15 + 8 * loin, 13.5 + 4 * loin
    pitch = 24.0 + 8.0 * (1 - float(smoothstep(-140, -60, z)))
    level = ((z - 7.0) / pitch) % 1.0  # 0 and 1: middle of a disc
    wave = 0.7 * local.noise["c"]
    waist = 1.0 - 0.07 * float(np.sin(np.pi * level))
    body = ellipse(u, v, (0, back), (width * waist, depth)) + wave
    # the back of a vertebral body is concave
    hollow = ellipse(u, v, (0, back + depth + 9), (11, 10.5))
    body = -smooth_union(-body, hollow, 3)
    if 0.12 < level < 0.88:
        ending = min(level - 0.12, 0.88 - level) * pitch  # mm to the end plate
        paint_bone(local, patient, body, cortex_mm=1.4 + 2.5 * max(0.0, 1 - ending / 2.2))
    else:
        local.paint(body, 92 + 8 * local.noise["cloud"], "cartilage")
    arch = _arch(local, level, loin, back + depth + 7.5) + 0.6 * wave
    paint_bone(local, patient, arch, cortex_mm=1.7, marrow=0.9)
    canal = ellipse(u, v, (0, back + depth + 7.5), (9.5 + loin, 8.0))
    local.paint(canal, 12.0, "nerve")
    local.paint(canal + 1.5, 22.0, "nerve")
    cord = ellipse(u, v, (0, back + depth + 7.5), (5.6, 4.4))
    local.paint(cord, 42.0 if z > -100 else 32.0, "nerve")


def _arch(local: Canvas, level: float, loin: float, canal: float) -> Array:
    """Signed distance to arch and processes around a canal centred at v = ``canal``."""
    u, v, z = local.u, local.v, local.z
    side = np.abs(u)
    ring = np.abs(ellipse(u, v, (0, canal), (12.0 + loin, 10.5))) - 2.6
    if level < 0.35:  # below the pedicles the ring is open for the nerves
        ring = np.maximum(ring, canal + 1.5 - v)
    droop = float(np.sin(np.pi * level))
    long = 20 + 8 * loin + 6 * droop
    spine = capsule(u, v, (0.8, canal + 11), (0.5, canal + long), (3.4, 2.2 + 1.6 * loin))
    arch = smooth_union(ring, spine, 5)
    if 0.3 < level < 0.85:
        tip = (27 + 6 * loin, canal + 9 - 7 * loin)
        across = capsule(side, v, (12, canal + 1), tip, (4.4, 2.6))
        arch = smooth_union(arch, across, 4)
    else:
        facet = ellipse(side, v, (13.5 + 3 * loin, canal + 6), (5.5, 6.5), 0.5)
        arch = smooth_union(arch, facet, 3)
    if z > -95 and 0.3 < level < 0.75:  # head and neck of the rib that starts here
        neck = capsule(side, v, (21, canal - 4), (37, canal + 8), (4.2, 3.4))
        arch = np.minimum(arch, neck)
    return arch
