"""Phantoms for physics: ellipses whose line integrals are known in closed form.

A projector can be checked against the formula, and a reconstruction against the values that went in. The anatomical
phantoms of ``ct_cncl.transforms.phantom`` are for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .geometry import Geometry, PixelSize, check_pixel_size


@dataclass(frozen=True)
class Ellipse:
    """An ellipse whose ``value`` is added to what lies beneath it.

    Args:
        x_mm: x of the centre, mm.
        y_mm: y of the centre, mm.
        a_mm: half axis along x before rotation, mm.
        b_mm: half axis along y before rotation, mm.
        value: added inside; HU for :func:`phantom_hu`, so that a water disc in air has +1000.
        angle: rotation about the centre from x towards y, radian.

    Raises:
        ValueError: if a half axis is not above 0.
    """

    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float
    value: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not (self.a_mm > 0 and self.b_mm > 0):
            raise ValueError(f"Expected half axes above 0 mm but got {self.a_mm} and {self.b_mm}.")


Ellipses = Sequence[Ellipse]
"""Ellipses over air (-1000 HU), in any order: their values add up."""


def disc(x_mm: float, y_mm: float, radius_mm: float, value: float) -> Ellipse:
    """A circle that adds ``value``, HU."""
    return Ellipse(x_mm, y_mm, radius_mm, radius_mm, value)


def water_cylinder(radius_mm: float = 100.0) -> list[Ellipse]:
    """A disc of water in air, for noise measurements: level and spectrum are the same all around the centre."""
    return [disc(0, 0, radius_mm, 1000.0)]


def resolution_phantom(
    radius_mm: float = 100.0, contrasts_hu: Sequence[float] = (-100, -50, 50, 100, 300, 900)
) -> list[Ellipse]:
    """Water with discs of several contrasts on a circle, wide enough to measure a task transfer function at their edges.

    >>> len(resolution_phantom())
    7
    """
    count = len(contrasts_hu)
    turns = [2 * math.pi * n / count for n in range(count)]
    distance, size = 0.6 * radius_mm, 0.13 * radius_mm
    return water_cylinder(radius_mm) + [
        disc(distance * math.cos(turn), distance * math.sin(turn), size, float(contrast))
        for turn, contrast in zip(turns, contrasts_hu, strict=True)
    ]


def low_contrast_phantom(radius_mm: float = 100.0) -> list[Ellipse]:
    """Water with one sector per contrast, each with discs of decreasing size along a radius.

    >>> inserts = low_contrast_phantom()[1:]
    >>> len(inserts), inserts[0].value, inserts[0].a_mm
    (24, 14.0, 7.5)
    """
    contrasts_hu, diameters_mm = (14, 7, 5, 3), (15, 9, 6, 4, 3, 2)
    phantom = water_cylinder(radius_mm)
    for n, contrast in enumerate(contrasts_hu):
        turn = 2 * math.pi * n / len(contrasts_hu)
        distance = 0.88 * radius_mm
        for diameter in diameters_mm:
            distance -= diameter / 2
            phantom.append(disc(distance * math.cos(turn), distance * math.sin(turn), diameter / 2, float(contrast)))
            distance -= diameter / 2 + 0.04 * radius_mm
    return phantom


def phantom_hu(phantom: Ellipses, shape: tuple[int, int], pixel_mm: PixelSize, *, samples: int = 8) -> np.ndarray:
    """The pixel image of ellipses in air, each pixel the mean over its area.

    Args:
        phantom: ellipses; values in HU.
        shape: (nx, ny).
        pixel_mm: (dx, dy) in mm.
        samples: points along each side of a pixel.

    Returns:
        (nx, ny) float32, HU.

    >>> phantom_hu(water_cylinder(10.0), (5, 5), (8.0, 8.0)).round()[2].tolist()
    [-1000.0, -281.0, 0.0, -281.0, -1000.0]
    """
    x, y = (
        (np.arange(count * samples) - (count * samples - 1) / 2) * side / samples
        for count, side in zip(shape, check_pixel_size(pixel_mm), strict=True)
    )
    fine = np.full((x.size, y.size), -1000.0, dtype=np.float32)
    for part in phantom:
        cosine, sine = math.cos(part.angle), math.sin(part.angle)
        u = (x[:, None] - part.x_mm) * cosine + (y - part.y_mm) * sine
        v = (y - part.y_mm) * cosine - (x[:, None] - part.x_mm) * sine
        fine += np.float32(part.value) * ((u / part.a_mm) ** 2 + (v / part.b_mm) ** 2 <= 1)
    return fine.reshape(shape[0], samples, shape[1], samples).mean(axis=(1, 3))


def phantom_line_integrals(phantom: Ellipses, geometry: Geometry, mu_water_per_mm: float) -> np.ndarray:
    """Line integrals of ellipses in closed form: chords, ``2 v a b sqrt(s^2 - t^2) / s^2``.

    Args:
        phantom: ellipses; values in HU, over air.
        geometry: the rays.
        mu_water_per_mm: attenuation of water, 1/mm: 1000 HU.

    Returns:
        (views, channels) float64, no unit.

    Source: Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, section 3.1.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> phantom_line_integrals(water_cylinder(100.0), ParallelBeam(1, 3, 60.0), 0.02).round(2)  # off centre 2 * 80 * 0.02
    array([[3.2, 4. , 3.2]])
    """
    normal = geometry.angles[:, None] + geometry.fan_angles
    total = np.zeros(normal.shape)
    for part in phantom:
        square = (part.a_mm * np.cos(normal - part.angle)) ** 2 + (part.b_mm * np.sin(normal - part.angle)) ** 2
        distance = geometry.positions_mm - part.x_mm * np.cos(normal) - part.y_mm * np.sin(normal)
        chord = 2 * part.a_mm * part.b_mm * np.sqrt(np.maximum(square - distance**2, 0)) / square
        total += chord * (part.value * mu_water_per_mm / 1000)
    return total
