"""The slice that anatomy is painted on: its HU, its labels and the patient coordinates of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ct_cncl.transforms.phantom.frame import PatientFrame
from ct_cncl.transforms.phantom.tissues import TISSUES, Array, Field
from ct_cncl.transforms.phantom.waves import Waves


@dataclass(frozen=True)
class Canvas:
    """One slice, or a rectangular view into one.

    Attributes:
        hu: (columns, rows) HU, painted in place.
        labels: (columns, rows) values of :data:`TISSUES`, painted in place.
        u: (columns, rows) nominal mm to the patient's left.
        v: (columns, rows) nominal mm backwards.
        z: nominal height of the slice in mm.
        edge: width of a soft edge in nominal mm: one pixel.
        noise: smooth random fields by name, (columns, rows) each.
        x: (columns,) picture mm. y: (rows,) picture mm. height: picture mm. px: mm per pixel.
        frame: conversion between picture and nominal coordinates.
    """

    hu: Array
    labels: npt.NDArray[np.uint8]
    u: Array
    v: Array
    z: float
    edge: float
    noise: dict[str, Array]
    x: Array
    y: Array
    height: float
    px: float
    frame: PatientFrame

    def around(self, u: float, v: float, reach: float) -> Canvas:
        """A view of everything within ``reach`` nominal mm of (u, v); painting on it changes this slice."""
        centre = self.frame.to_picture(np.array([[u, v, self.z]]))[0]
        margin = reach * self.frame.largest + 6.0
        columns = slice(*np.searchsorted(self.x, [centre[0] - margin, centre[0] + margin]))
        rows = slice(*np.searchsorted(self.y, [centre[1] - margin, centre[1] + margin]))
        return replace(
            self,
            hu=self.hu[columns, rows],
            labels=self.labels[columns, rows],
            u=self.u[columns, rows],
            v=self.v[columns, rows],
            noise={name: field[columns, rows] for name, field in self.noise.items()},
            x=self.x[columns],
            y=self.y[rows],
        )

    def soft(self, distance: Field) -> Array:
        """Fraction of each pixel that a shape covers, from its signed distance in nominal mm."""
        return np.clip(np.float32(0.5) - distance / np.float32(self.edge), 0, 1).astype(np.float32, copy=False)

    def paint(self, distance: Field, value: Field | float, tissue: str, *, only: str | None = None) -> Array:
        """Paint a shape with a soft edge and return its coverage.

        Args:
            distance: (columns, rows) signed distance in nominal mm.
            value: HU, one number or (columns, rows).
            tissue: class of the painted pixels.
            only: paint only on pixels that are of this class so far.
        """
        cover = self.soft(distance)
        if only is not None:
            cover = np.where(self.labels == TISSUES[only], cover, np.float32(0))
        self.blend(cover, value, tissue)
        return cover

    def blend(self, cover: Field, value: Field | float, tissue: str | None) -> None:
        """Mix in ``value`` HU by ``cover`` (0 to 1); pixels at least half covered become ``tissue``, unless that is None."""
        self.hu[...] += cover * (np.asarray(value, np.float32) - self.hu)
        if tissue is not None:
            self.labels[cover >= 0.5] = TISSUES[tissue]


def new_canvas(frame: PatientFrame, fields: Mapping[str, Waves], x: Array, y: Array, height: float) -> Canvas:
    """An empty slice (air) at ``height`` mm with pixel centres ``x`` and ``y`` (mm)."""
    u, v, z = frame.grid(x, y, height)
    px = float(x[1] - x[0])
    return Canvas(
        hu=np.full((len(x), len(y)), -1000, np.float32),
        labels=np.zeros((len(x), len(y)), np.uint8),
        u=u,
        v=v,
        z=z,
        edge=px / frame.mean,
        noise={name: waves.on_grid(x, y, height) for name, waves in fields.items()},
        x=x,
        y=y,
        height=height,
        px=px,
        frame=frame,
    )
