"""Liver lesions: draw them where they fit, and paint them with exact contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.tissues import TISSUES, Array

RADIUS_MM = (3.0, 12.0)
CLEARANCE_MM = 3.0
"""Smallest distance of a lesion from the liver's surface and from other lesions, picture mm."""


@dataclass(frozen=True)
class LiverSlice:
    """A painted slice of the liver: signed distance to the liver's surface (picture mm) and HU of the plain parenchyma."""

    canvas: Canvas
    distance: Array
    plain: Array


@dataclass(frozen=True)
class Sphere:
    """A lesion in picture coordinates (x, y, height), mm, with its contrast to the liver in HU."""

    centre: tuple[float, float, float]
    radius: float
    contrast: float


def draw_lesions(rng: np.random.Generator, slices: list[LiverSlice]) -> list[Sphere]:
    """Draw two to six lesions that lie wholly in the liver, or fewer if there is no room.

    Every centre lies within 1 mm of a slice, so that each lesion can be seen and measured there.
    """
    found: list[Sphere] = []
    if not slices:
        return found
    wanted = int(rng.integers(2, 7))
    radii = np.sort(rng.uniform(*RADIUS_MM, wanted))[::-1]
    for radius in radii:
        contrast = float(rng.uniform(8, 30)) if rng.random() < 0.15 else float(rng.uniform(-40, -8))
        for _ in range(40):
            sphere = _try(rng, slices, float(radius), contrast)
            if sphere is not None and _fits(sphere, slices, found):
                found.append(sphere)
                break
    return found


def _try(rng: np.random.Generator, slices: list[LiverSlice], radius: float, contrast: float) -> Sphere | None:
    """A lesion deep enough in the liver of a random slice, or None if that slice has no such place."""
    chosen = slices[int(rng.integers(len(slices)))]
    shift = float(rng.uniform(-1, 1))
    pick = rng.random()
    jitter = rng.uniform(-0.5, 0.5, 2)
    deep = np.flatnonzero(chosen.distance < -(radius + CLEARANCE_MM))
    if len(deep) == 0:
        return None
    i, j = np.unravel_index(int(deep[int(pick * len(deep))]), chosen.distance.shape)
    canvas = chosen.canvas
    x, y = canvas.x[i] + jitter[0] * canvas.px, canvas.y[j] + jitter[1] * canvas.px
    return Sphere((float(x), float(y), canvas.height + shift), radius, contrast)


def _fits(sphere: Sphere, slices: list[LiverSlice], found: list[Sphere]) -> bool:
    """Whether the sphere lies in parenchyma, apart from a few small vessels, and clear of other lesions."""
    for other in found:
        if np.linalg.norm(np.subtract(sphere.centre, other.centre)) < sphere.radius + other.radius + CLEARANCE_MM:
            return False
    for piece in slices:
        within = sphere_distance(piece.canvas, sphere) < 0
        if within.any():
            if piece.distance[within].max() > -CLEARANCE_MM:
                return False
            if np.mean(piece.canvas.labels[within] == TISSUES["liver"]) < 0.9:
                return False
    return True


def sphere_distance(canvas: Canvas, sphere: Sphere) -> Array:
    """Signed distance (columns, rows) to the sphere, picture mm."""
    dx, dy = canvas.x[:, None] - sphere.centre[0], canvas.y[None, :] - sphere.centre[1]
    distance = np.sqrt(dx * dx + dy * dy + (canvas.height - sphere.centre[2]) ** 2) - sphere.radius
    return np.asarray(distance, np.float32)


def paint_lesion(piece: LiverSlice, sphere: Sphere) -> None:
    """Paint a lesion: plain parenchyma plus the contrast replaces the liver there, with any vessel in it."""
    canvas = piece.canvas
    if abs(canvas.height - sphere.centre[2]) > sphere.radius + canvas.px:
        return
    cover = np.clip(0.5 - sphere_distance(canvas, sphere) / np.float32(canvas.px), 0, 1)
    canvas.blend(cover, piece.plain + np.float32(sphere.contrast), "lesion")
