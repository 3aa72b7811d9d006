"""Branching vessels that supply a whole organ and thin out towards its surface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ct_cncl.transforms.phantom.tissues import Field
from ct_cncl.transforms.phantom.tubes import Tubes

MURRAY = 2.7
"""Branches have the same sum of r ** MURRAY as their stem of radius r (Murray's law: 3; in lungs it is near 2.7)."""


def scatter(rng: np.random.Generator, count: int, low: Field, high: Field, inside: Callable[[Field], Field]) -> Field:
    """Draw ``count`` points (count, 3), mm, uniformly in the part of a box where ``inside`` (signed distance, mm) is negative.

    Fewer points are returned if that part is so small that 20 rounds of draws do not find enough.
    """
    found: list[Field] = []
    missing = count
    for _ in range(20):
        points = rng.uniform(low, high, size=(4 * count, 3))
        points = points[inside(points) < 0][:missing]
        found.append(points)
        missing -= len(points)
        if missing <= 0:
            break
    return np.concatenate(found)


def supply(rng: np.random.Generator, root: Field, targets: Field, *, tip: float, thickest: float = 9.0) -> Tubes:
    """Grow a tree from ``root`` (3,) to all ``targets`` (targets, 3), mm.

    From the root outwards, each target joins an earlier one that is near and has a short way back to the root. Radii follow
    from the number of tips downstream (Murray's law): about ``tip`` mm at the ends, at most ``thickest`` mm at the root.
    """
    targets = targets[np.argsort(np.linalg.norm(targets - root, axis=1))]
    points = np.concatenate([root[None], targets]).astype(np.float32)
    parent = np.zeros(len(points), int)
    way = np.zeros(len(points), np.float32)
    for k in range(1, len(points)):
        gap = points[:k] - points[k]
        near = np.sqrt(np.einsum("ij,ij->i", gap, gap))
        parent[k] = int(np.argmin(near + np.float32(0.45) * way[:k]))
        way[k] = way[parent[k]] + near[parent[k]]
    flow = np.zeros(len(points))
    ends = np.ones(len(points), bool)
    ends[parent[1:]] = False
    flow[ends] = rng.uniform(0.6, 1.5, int(ends.sum()))
    for k in range(len(points) - 1, 0, -1):
        flow[parent[k]] += flow[k]
    radius = np.minimum(tip * flow ** (1 / MURRAY), thickest)
    return _bend(rng, points[parent[1:]], points[1:], radius[1:])


def _bend(rng: np.random.Generator, start: Field, end: Field, radius: Field) -> Tubes:
    """Cut each straight stretch in three and push the joints aside, so that vessels wind a little."""
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    push = [0.07 * length * rng.normal(size=start.shape) for _ in range(2)]
    joints = [start, start + (end - start) / 3 + push[0], start + (end - start) * 2 / 3 + push[1], end]
    return Tubes(np.concatenate(joints[:-1]), np.concatenate(joints[1:]), np.tile(radius, 3), np.tile(radius, 3))
