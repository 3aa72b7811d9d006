"""Contrast kept: the response f(y + s) - f(y) of any denoiser f to small inserts s of known size and contrast.

Noise-free inserts are added to slices of phantoms or scans, so that the response is measured in real noise and anatomy. They
are far apart, so that many are measured at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from ct_cncl.transforms.anatomy.regions import soft_tissue_windows

APART_MM = 30.0
"""Smallest distance of two inserts, centre to centre: more than the receptive field of this project's networks."""
_FINE = 9
"""Number of points along the side of a pixel over which an insert is averaged."""
_TRIES = 400
_SPIKES, _CORE, _BLUNT = 6, 0.55, 0.35


class Insert(NamedTuple):
    """A small low-contrast object.

    Attributes:
        contrast_hu: contrast of the centre to its surroundings.
        diameter_mm: diameter at half the contrast.
        edge_mm: width over which the contrast falls to 0; 0 is a sharp edge.
        spiculated: whether it is a star of the same area instead of a disc.
    """

    contrast_hu: float
    diameter_mm: float
    edge_mm: float = 0.0
    spiculated: bool = False

    @property
    def name(self) -> str:
        """Name in tables.

        >>> Insert(14.0, 3.0).name
        '14 HU, 3 mm'
        """
        return f"{self.contrast_hu:g} HU, {self.diameter_mm:g} mm"


INSERTS = (Insert(14.0, 3.0), Insert(7.0, 5.0), Insert(5.0, 7.0), Insert(3.0, 10.0))
"""Low-contrast inserts that are about equally hard to see."""


class Place(NamedTuple):
    """Place of an insert: its slice, the pixel of its centre, and its index in the list of inserts."""

    slice: int
    x: int
    y: int
    kind: int


def insert_image(insert: Insert, pixel_mm: tuple[float, float]) -> np.ndarray:
    """The HU that an insert adds, averaged over each pixel, with its centre in the centre pixel.

    Args:
        insert: the object.
        pixel_mm: (dx, dy) in mm.

    Returns:
        Image (2 m + 1, 2 n + 1) float64, HU, 0 at the border.

    >>> image = insert_image(Insert(10.0, 5.0), (0.5, 0.5))
    >>> float(image.max()), round(float(image.sum()) * 0.25 / (10 * math.pi * 2.5**2), 2)
    (10.0, 1.0)
    """
    reach = (1.0 if not insert.spiculated else 1.0 / _CORE) * insert.diameter_mm / 2 + insert.edge_mm
    half = [math.ceil(reach / size) + 1 for size in pixel_mm]
    fine = (np.arange(_FINE) - _FINE // 2) / _FINE
    x, y = (((np.arange(-count, count + 1)[:, None] + fine).ravel() * size) for count, size in zip(half, pixel_mm))
    radius = np.hypot(x[:, None], y[None, :])
    edge = np.full_like(radius, insert.diameter_mm / 2)
    if insert.spiculated:  # r(a) = c (1 + b cos 6a)^2, c such that the area is the disc's
        wave = (1 + _BLUNT * np.cos(_SPIKES * np.arctan2(y[None, :], x[:, None]))) ** 2
        mean = 1 + 3 * _BLUNT**2 + 3 * _BLUNT**4 / 8  # mean of the squared wave
        edge = edge * wave / math.sqrt(mean)
    if insert.edge_mm > 0:
        inside = np.clip(0.5 - (radius - edge) / insert.edge_mm, 0, 1)
    else:
        inside = (radius <= edge).astype(np.float64)
    blocks = inside.reshape(2 * half[0] + 1, _FINE, 2 * half[1] + 1, _FINE)
    return insert.contrast_hu * blocks.mean(axis=(1, 3))


def insert_places(
    volume: np.ndarray, pixel_mm: tuple[float, float], inserts: Sequence[Insert] = INSERTS, *, seed: int = 0
) -> list[Place]:
    """Choose places in soft tissue where whole inserts fit, far from each other; the kinds of inserts alternate.

    The places in slice k depend only on (seed, k) and on the slice.

    Args:
        volume: (x, y, slices), HU.
        pixel_mm: (dx, dy) in mm.
        inserts: all kinds of inserts.
        seed: seed of the places, 0 or above.
    """
    need = [(one.diameter_mm / 2 / (_CORE if one.spiculated else 1) + one.edge_mm) for one in inserts]
    found: list[Place] = []
    for number in range(volume.shape[2]):
        depth = distance_transform_edt(np.pad(soft_tissue_windows(volume[..., number]), 1), sampling=pixel_mm)
        depth = depth[1:-1, 1:-1]
        possible = np.argwhere(depth > min(need))
        rng = np.random.default_rng([seed, number])
        turn, own = int(rng.integers(len(inserts))), np.empty((0, 2))
        for x, y in possible[rng.permutation(len(possible))[:_TRIES]]:
            here = np.array([x * pixel_mm[0], y * pixel_mm[1]])
            kind = (turn + len(own)) % len(inserts)
            if depth[x, y] <= need[kind] or (len(own) and np.hypot(*(own - here).T).min() < APART_MM):
                continue
            own = np.vstack([own, here])
            found.append(Place(number, int(x), int(y), kind))
    return found


def with_inserts(
    volume: np.ndarray, places: Sequence[Place], inserts: Sequence[Insert], pixel_mm: tuple[float, float]
) -> np.ndarray:
    """Add inserts at their places to a volume (x, y, slices), HU; returns float32. Parts outside the slice are cut off."""
    result = volume.astype(np.float32)
    images = [insert_image(one, pixel_mm).astype(np.float32) for one in inserts]
    for place in places:
        into, part = _overlap(result.shape, images[place.kind].shape, place)
        result[(*into, place.slice)] += images[place.kind][part]
    return result


def contrasts_kept(
    plain: np.ndarray,
    inserted: np.ndarray,
    places: Sequence[Place],
    inserts: Sequence[Insert],
    pixel_mm: tuple[float, float],
) -> np.ndarray:
    """Fraction of its contrast that each insert keeps: mean of f(y + s) - f(y) divided by the mean of s, over the insert.

    Args:
        plain: f(y), (x, y, slices), HU.
        inserted: f(y + s), the same shape, HU.
        places: places of the inserts.
        inserts: all kinds of inserts.
        pixel_mm: (dx, dy) in mm.

    Returns:
        (places,) float64; 1 is the full contrast.

    >>> noise = np.random.default_rng(0).normal(0, 20, (64, 64, 1))
    >>> place = [Place(0, 32, 32, 0)]
    >>> more = with_inserts(noise, place, INSERTS, (0.7, 0.7))
    >>> contrasts_kept(noise, noise + 0.5 * (more - noise), place, INSERTS, (0.7, 0.7)).round(3).tolist()
    [0.5]
    """
    images = [insert_image(one, pixel_mm) for one in inserts]
    shares = []
    for place in places:
        image = images[place.kind]
        into, part = _overlap(plain.shape, image.shape, place)
        own, index = image[part], (*into, place.slice)
        inside = np.abs(own) >= 0.5 * abs(inserts[place.kind].contrast_hu)
        response = inserted[index].astype(np.float64) - plain[index]
        shares.append(float(response[inside].mean() / own[inside].mean()))
    return np.array(shares)


def _overlap(
    shape: Sequence[int], size: Sequence[int], place: Place
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Region of a slice that a small image covers, and the part of that image that lies in it."""
    into, part = [], []
    for centre, length, side in zip((place.x, place.y), shape, size):
        first = centre - side // 2
        into.append(slice(max(first, 0), min(first + side, length)))
        part.append(slice(into[-1].start - first, into[-1].stop - first))
    return (into[0], into[1]), (part[0], part[1])
