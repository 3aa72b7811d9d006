"""The patient table under the body: a thin curved shell with foam inside, and a mattress."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas


@dataclass(frozen=True)
class PatientTable:
    """A table, level in the picture; lengths in picture mm.

    Attributes:
        gap: distance between skin and mattress.
        curve: rise of the surface towards the sides in 1/mm (a parabola).
        half_width: half of the table's width.
        depth: distance from the lowest point of the surface to the flat bottom.
        flat: fraction of the width that the flat bottom takes up.
        shell: HU of the shell. wall: its thickness.
        mattress: thickness of the mattress.
    """

    gap: float
    curve: float
    half_width: float
    depth: float
    flat: float
    shell: float
    wall: float
    mattress: float


def draw_table(rng: np.random.Generator) -> PatientTable:
    """Draw the dimensions and the density of a table."""
    return PatientTable(
        gap=float(rng.uniform(1, 7)),
        curve=float(rng.uniform(0.0006, 0.0013)),
        half_width=float(rng.uniform(188, 215)),
        depth=float(rng.uniform(32, 55)),
        flat=float(rng.uniform(0.4, 0.65)),
        shell=float(rng.uniform(60, 320)),
        wall=float(rng.uniform(1.3, 2.2)),
        mattress=float(rng.uniform(6, 14)),
    )


def paint_table(canvas: Canvas, table: PatientTable, top: float) -> None:
    """Paint the table on an empty slice; ``top`` is the y of the lowest point of its surface in picture mm."""
    x, y = canvas.x[:, None], canvas.y[None, :]
    surface = np.float32(top) - np.float32(table.curve) * x * x
    side = np.abs(x) - np.float32(table.half_width)
    bottom = top + table.depth - np.clip(np.abs(x) - table.flat * table.half_width, 0, None) * np.float32(0.95)
    shell = np.maximum(np.maximum(surface - y, y - bottom), side)
    mattress = np.maximum(np.maximum(surface - table.mattress - y, y - surface + 1.5), side + 25)
    scale = np.float32(canvas.edge / canvas.px)
    for distance, value in (
        (mattress, -860.0),
        (mattress + 1.0, -955.0),
        (shell, table.shell),
        (shell + table.wall, -945.0),
    ):
        canvas.paint(distance * scale, value, "table")
