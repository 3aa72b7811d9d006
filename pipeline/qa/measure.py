"""Measurements in scans of the test phantoms, denoised or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ct_cncl.pipeline.evaluation.slice_figures import short_reason
from ct_cncl.pipeline.metrics.noise_power import NoiseFigures, noise_figures, noise_power_of_differences
from ct_cncl.pipeline.metrics.observer import Detectability, channelised_hotelling, difference_of_gaussian_channels
from ct_cncl.pipeline.metrics.resolution import TaskTransfer, task_transfer
from ct_cncl.pipeline.qa.phantoms import CONTRASTS_HU, LESIONS, Scanner, discs, sites
from ct_cncl.transforms.anatomy.regions import NoisePower

_PATCH = 32
"""Side of the patches of noise power, pixels."""
REGION_MM = 18.0
"""Side of the regions that the observer sees."""
MIDDLE, RIM = 0.3, 0.85
"""Regions for uniformity: radius of the middle disc, and distance of four rim discs from the centre, in phantom radii."""


@dataclass(frozen=True, eq=False)
class DoseResult:
    """All measurements of one method at one dose.

    Attributes:
        power: noise power spectrum of water, from differences of slices.
        noise: figures of the spectrum; None if there is no noise.
        water_hu: mean of water in the middle, HU.
        uniformity_hu: difference from the middle of the one of four rim regions that differs most, HU.
        transfer: task transfer by contrast; a text if it could not be measured.
        disc_hu: mean of each disc by contrast, HU.
        detectability: detectability by (diameter mm, contrast HU); a text if it could not be measured.
    """

    power: NoisePower
    noise: NoiseFigures | None
    water_hu: float
    uniformity_hu: float
    transfer: Mapping[float, TaskTransfer | str]
    disc_hu: Mapping[float, float]
    detectability: Mapping[tuple[float, float], Detectability | str]


def measure_dose(scanner: Scanner, water: np.ndarray, discs_scan: np.ndarray, lesions: np.ndarray) -> DoseResult:
    """Compute all figures of the scans of three phantoms.

    Args:
        scanner: the scanner that made the scans.
        water: the water cylinder, (x, y, slices), HU.
        discs_scan: discs of every contrast, of the same form.
        lesions: low-contrast lesions, of the same form.

    Raises:
        ValueError: there are fewer than 2 slices of water.
    """
    power = noise_power(scanner, water)
    mean = water.mean(axis=2, dtype=np.float64)
    radius = scanner.settings.radius_mm
    middle = float(mean[scanner.disc_mask(0, 0, MIDDLE * radius)].mean())
    rim = [
        scanner.disc_mask(x * RIM * radius, y * RIM * radius, 0.1 * radius)
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    uniformity = max((float(mean[mask].mean()) - middle for mask in rim), key=abs)
    averaged = discs_scan.mean(axis=2, dtype=np.float64)
    return DoseResult(
        power,
        noise_figures(power, pixel_mm=scanner.pixel) if power.spectrum.sum() > 0 else None,
        middle,
        uniformity,
        transfers(scanner, averaged),
        {
            contrast: float(averaged[scanner.disc_mask(part.x_mm, part.y_mm, 0.6 * part.a_mm)].mean())
            for contrast, part in zip(CONTRASTS_HU, discs(scanner)[1:])
        },
        detectabilities(scanner, lesions, water),
    )


def noise_power(scanner: Scanner, water: np.ndarray) -> NoisePower:
    """Noise power spectrum of the inner part of water (x, y, slices), HU, from differences of pairs of slices.

    Raises:
        ValueError: there are fewer than 2 slices.
    """
    pairs = water.shape[2] // 2
    if pairs < 1:
        raise ValueError(f"Expected 2 or more slices of water, but got {water.shape[2]}.")
    half = int(0.6 * scanner.settings.radius_mm / scanner.settings.pixel_mm / np.sqrt(2))
    start, count = scanner.settings.size // 2 - half, 2 * half // _PATCH
    corners = [(start + _PATCH * i, start + _PATCH * j) for i in range(count) for j in range(count)]
    first, second = ([water[..., 2 * k + side] for k in range(pairs)] for side in (0, 1))
    return noise_power_of_differences(first, second, [corners] * pairs, pixel_mm=scanner.pixel, size=_PATCH)


def transfers(scanner: Scanner, averaged: np.ndarray) -> dict[float, TaskTransfer | str]:
    """Task transfer at every disc in a mean over slices (x, y), HU; a text if it could not be measured."""
    found: dict[float, TaskTransfer | str] = {}
    for contrast, part in zip(CONTRASTS_HU, discs(scanner)[1:]):
        centre = scanner.place(part.x_mm, part.y_mm)
        try:
            found[contrast] = task_transfer(
                averaged, centre=centre, radius_mm=part.a_mm, pixel_mm=scanner.settings.pixel_mm
            )
        except ValueError as error:
            found[contrast] = short_reason(error)
    return found


def detectabilities(
    scanner: Scanner, present: np.ndarray, absent: np.ndarray
) -> dict[tuple[float, float], Detectability | str]:
    """Detectability of every kind of lesion against water at the same places, from two scans (x, y, slices), HU."""
    size = 2 * round(REGION_MM / scanner.settings.pixel_mm / 2) + 1
    channels = difference_of_gaussian_channels(size)
    places = sites(scanner)
    without = regions(absent, places, size)
    return {
        kind: _detectability(regions(present, places[k :: len(LESIONS)], size), without, channels)
        for k, kind in enumerate(LESIONS)
    }


def _detectability(present: np.ndarray, absent: np.ndarray, channels: np.ndarray) -> Detectability | str:
    try:
        return channelised_hotelling(present, absent, channels)
    except ValueError as error:
        return short_reason(error)


def regions(volume: np.ndarray, places: list[tuple[int, int]], size: int) -> np.ndarray:
    """Cut regions (n, size, size) around the places from all slices of ``volume`` (x, y, slices), place by place."""
    half = size // 2
    parts = [volume[x - half : x + half + 1, y - half : y + half + 1] for x, y in places]
    return np.concatenate([np.moveaxis(part, 2, 0) for part in parts])
