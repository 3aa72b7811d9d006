"""Tubes: vessels, airways and glands as short straight pieces, many of which are painted at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.canvas import Canvas
from ct_cncl.transforms.phantom.frame import PatientFrame
from ct_cncl.transforms.phantom.tissues import Array, Field

_LONGEST = 8.0
"""Largest length in mm of the pieces into which tubes are cut, so that each touches few pixels."""


@dataclass(frozen=True)
class Tubes:
    """Straight pieces with round cross-section: ``start`` and ``end`` (pieces, 3), radii ``r0`` and ``r1`` (pieces,), mm."""

    start: Field
    end: Field
    r0: Field
    r1: Field

    def in_picture(self, frame: PatientFrame) -> Tubes:
        """The same pieces in picture coordinates."""
        scale = frame.mean
        return Tubes(frame.to_picture(self.start), frame.to_picture(self.end), self.r0 * scale, self.r1 * scale)


def join(*parts: Tubes) -> Tubes:
    """Join the pieces of several tubes."""
    return Tubes(
        np.concatenate([p.start for p in parts]),
        np.concatenate([p.end for p in parts]),
        np.concatenate([p.r0 for p in parts]),
        np.concatenate([p.r1 for p in parts]),
    )


def polyline(points: Field, radii: Field) -> Tubes:
    """A smooth tube through ``points`` (points, 3) with ``radii`` (points,) in mm, cut into short pieces."""
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    # Chaikin's corner cutting rounds the course; two passes are enough for a vessel
    for _ in range(2):
        if len(points) > 2:
            inner_p = np.stack([0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]], 1)
            inner_r = np.stack([0.75 * radii[:-1] + 0.25 * radii[1:], 0.25 * radii[:-1] + 0.75 * radii[1:]], 1)
            points = np.concatenate([points[:1], inner_p.reshape(-1, 3), points[-1:]])
            radii = np.concatenate([radii[:1], inner_r.reshape(-1), radii[-1:]])
    pieces = np.maximum(np.ceil(np.linalg.norm(np.diff(points, axis=0), axis=1) / _LONGEST).astype(int), 1)
    place = np.concatenate([i + np.arange(n) / n for i, n in enumerate(pieces)] + [[len(points) - 1.0]])
    index = np.arange(len(points))
    path = np.stack([np.interp(place, index, points[:, k]) for k in range(3)], axis=1)
    radius = np.interp(place, index, radii)
    return Tubes(path[:-1], path[1:], radius[:-1], radius[1:])


def coverage(canvas: Canvas, tubes: Tubes, *, thickness: float = 1.6) -> Array:
    """Fraction (columns, rows) of each pixel that tubes (picture coordinates) cover, averaged over ``thickness`` mm."""
    cover = np.zeros(canvas.hu.shape, np.float32)
    half = thickness / 2
    reach = np.maximum(tubes.r0, tubes.r1) + half + canvas.px
    low, high = np.minimum(tubes.start[:, 2], tubes.end[:, 2]), np.maximum(tubes.start[:, 2], tubes.end[:, 2])
    near = np.flatnonzero((low - reach < canvas.height) & (high + reach > canvas.height))
    if len(near) == 0:
        return cover
    extent = np.abs(tubes.end - tubes.start)[near, :2].max(axis=1) + 2 * np.maximum(tubes.r0, tubes.r1)[near]
    size = np.exp2(np.ceil(np.log2(extent / canvas.px + 4))).astype(int)
    for width in np.unique(size):
        members = near[size == width]
        for first in range(0, len(members), max(1, 2**18 // width**2)):
            some = members[first : first + max(1, 2**18 // width**2)]
            _stamp(cover, canvas, tubes, which=some, width=int(width), half=half)
    return cover


def _stamp(cover: Array, canvas: Canvas, tubes: Tubes, *, which: Field, width: int, half: float) -> None:
    """Write the coverage of the tubes ``which`` into ``cover``, each in its own window of ``width`` pixels."""
    start = tubes.start[which].astype(np.float32)
    course = tubes.end[which].astype(np.float32) - start
    middle = start + course / 2
    columns, rows = cover.shape
    offset = np.arange(width) - width // 2
    i = np.rint((middle[:, 0] - canvas.x[0]) / canvas.px).astype(int)[:, None] + offset
    j = np.rint((middle[:, 1] - canvas.y[0]) / canvas.px).astype(int)[:, None] + offset
    dx = (canvas.x[0] + i * canvas.px - start[:, :1]).astype(np.float32)[:, :, None]
    dy = (canvas.y[0] + j * canvas.px - start[:, 1:2]).astype(np.float32)[:, None, :]
    dz = (np.float32(canvas.height) - start[:, 2])[:, None, None]
    cu, cv, cw = (course[:, k][:, None, None] for k in range(3))
    along = np.clip((dx * cu + dy * cv + dz * cw) / np.maximum(cu**2 + cv**2 + cw**2, 1e-6), 0, 1)
    away = np.maximum(np.abs(dz - along * cw) - np.float32(half), 0)
    distance = np.sqrt((dx - along * cu) ** 2 + (dy - along * cv) ** 2 + away**2)
    r0, r1 = (r[which].astype(np.float32)[:, None, None] for r in (tubes.r0, tubes.r1))
    radius = r0 + (r1 - r0) * along
    px = np.float32(canvas.px)
    share = np.clip(0.5 + (radius - distance) / px, 0, 1) * np.minimum(1, 2 * radius / px)
    valid = ((i >= 0) & (i < columns))[:, :, None] & ((j >= 0) & (j < rows))[:, None, :] & (share > 0)
    index = (i[:, :, None] * rows + j[:, None, :])[valid]
    np.maximum.at(cover.reshape(-1), index, share[valid])
