"""Effects on small inserts, empty water, shapes and HU levels: contrast kept, false structure, characterisation, shifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ct_cncl.pipeline.evaluation.slice_figures import short_reason
from ct_cncl.pipeline.metrics.bootstrap import Interval, bootstrap_mean
from ct_cncl.pipeline.metrics.characterisation import Area, told_apart
from ct_cncl.pipeline.metrics.false_structure import Blobs, blobs_per_cm2
from ct_cncl.pipeline.metrics.inserts import (
    INSERTS,
    Insert,
    Place,
    contrasts_kept,
    insert_image,
    insert_places,
    with_inserts,
)
from ct_cncl.pipeline.metrics.levels import disc_shifts
from ct_cncl.pipeline.metrics.observer import difference_of_gaussian_channels
from ct_cncl.pipeline.qa.measure import REGION_MM, regions
from ct_cncl.pipeline.qa.phantoms import Scanner, sites

SHAPES_HU = (-20.0, -50.0)
"""Contrasts of the round and spiculated lesions that the observer tells apart."""
SHAPE_MM = 6.0
INNER = 0.6
"""Radius within which noise and blobs are measured, as a fraction of the phantom's radius."""


@dataclass(frozen=True, eq=False)
class InsertResult:
    """The results of one method at one dose.

    Attributes:
        kept: fraction of contrast kept by insert, over slices.
        noise_left: standard deviation of result - truth, divided by that of the input.
        blobs: false structure of the size of each insert.
        areas: area under the ROC curve for round against spiculated lesions by contrast; a text if it could not be measured.
        shifts_hu: shifts of the means of large discs, HU.
    """

    kept: Mapping[Insert, Interval]
    noise_left: float
    blobs: Mapping[Insert, Blobs]
    areas: Mapping[float, Area | str]
    shifts_hu: np.ndarray


@dataclass(frozen=True, eq=False)
class InsertScans:
    """Scans of one method at one dose, (x, y, slices) HU: water, with inserts, with round and with spiculated lesions."""

    water: np.ndarray
    inserted: np.ndarray
    round: np.ndarray
    spiculated: np.ndarray

    def through(self, denoise: Callable[[np.ndarray], np.ndarray], water: np.ndarray) -> InsertScans:
        """The same scans after a denoiser, whose result for water is already known."""
        return InsertScans(water, *(denoise(one) for one in (self.inserted, self.round, self.spiculated)))

    def mixed(self, other: InsertScans, share: float) -> InsertScans:
        """Scans with a fraction ``share`` of the change from these scans to ``other``."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return InsertScans(*(one + share * (two - one) for one, two in pairs))


def insert_scans(scanner: Scanner, water: np.ndarray, others: np.ndarray, places: list[Place]) -> InsertScans:
    """Add inserts and lesions of two shapes to water.

    Args:
        scanner: scanner of the phantoms.
        water: (x, y, slices), HU.
        others: water with other noise realizations, so that the two shapes lie in independent noise.
        places: places of the inserts.
    """
    return InsertScans(
        water,
        with_inserts(water, places, INSERTS, scanner.pixel),
        _with_shapes(scanner, water, spiculated=False),
        _with_shapes(scanner, others, spiculated=True),
    )


def _with_shapes(scanner: Scanner, water: np.ndarray, *, spiculated: bool) -> np.ndarray:
    """Add lesions at all sites, with alternating contrasts."""
    kinds = [Insert(contrast, SHAPE_MM, spiculated=spiculated) for contrast in SHAPES_HU]
    places = [
        Place(k, x, y, number % len(kinds))
        for k in range(water.shape[2])
        for number, (x, y) in enumerate(sites(scanner))
    ]
    return with_inserts(water, places, kinds, scanner.pixel)


def measure_inserts(
    scanner: Scanner, before: InsertScans, after: InsertScans, clean: np.ndarray, places: list[Place]
) -> InsertResult:
    """Compute all figures of one method at one dose.

    Args:
        scanner: scanner of the phantoms.
        before: the input.
        after: the method's result; the input itself for the baseline.
        clean: water without noise, (x, y), HU.
        places: places of the inserts.
    """
    region = scanner.disc_mask(0, 0, INNER * scanner.settings.radius_mm)
    noise, residual = (scans.water - clean[..., None] for scans in (before, after))
    shares = contrasts_kept(after.water, after.inserted, places, INSERTS, scanner.pixel)
    own = {
        one: [
            shares[[n for n, p in enumerate(places) if p.slice == k and p.kind == kind]] for k in range(noise.shape[2])
        ]
        for kind, one in enumerate(INSERTS)
    }
    return InsertResult(
        {one: bootstrap_mean(np.array([v.mean() for v in values if v.size]), seed=0) for one, values in own.items() if any(v.size for v in values)},
        float(residual[region].std() / noise[region].std()),
        {one: blobs_per_cm2(residual, noise, insert_image(one, scanner.pixel), region, scanner.pixel) for one in INSERTS},
        {contrast: _told_apart(scanner, after, number) for number, contrast in enumerate(SHAPES_HU)},
        disc_shifts(before.water, after.water, scanner.pixel, region=scanner.disc_mask(0, 0, scanner.settings.radius_mm)),
    )  # fmt: skip


def _told_apart(scanner: Scanner, scans: InsertScans, number: int) -> Area | str:
    size = 2 * round(REGION_MM / scanner.settings.pixel_mm / 2) + 1
    places = sites(scanner)[number :: len(SHAPES_HU)]
    first, second = (regions(volume, places, size) for volume in (scans.round, scans.spiculated))
    try:
        return told_apart(first, second, difference_of_gaussian_channels(size))
    except ValueError as error:
        return short_reason(error)


def places_in(scanner: Scanner, clean: np.ndarray, slices: int) -> list[Place]:
    """Places of the inserts in ``slices`` slices of water."""
    return insert_places(np.repeat(clean[..., None], slices, axis=2), scanner.pixel, seed=scanner.settings.seed)
