"""HU errors in the tissues of a slice. Slices are arrays (x, y), HU. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_erosion, uniform_filter

from ct_cncl.transforms.phantom import TISSUES

TISSUE_HU: Mapping[str, tuple[float, float]] = {
    "air": (-1100.0, -950.0),
    "lung": (-930.0, -600.0),
    "fat": (-150.0, -50.0),
    "soft tissue": (-10.0, 180.0),
    "bone": (250.0, 3000.0),
}
"""Ranges of the smoothed reference's HU for each class; the gaps between them leave out mixed tissue."""
SMOOTHING = 5
"""Side in pixels of the square whose mean decides the class, so that noise of single pixels does not."""
TISSUE_BORDER = 2
"""Width in pixels of the border that each class loses: partial volume and blurred edges are not errors of the tissue's HU."""
LEAST_PIXELS = 50
"""Smallest number of pixels for which the error of a class is computed."""
_OF_PHANTOM = {
    "air": ("air", "airway", "gas"),
    "lung": ("lung",),
    "fat": ("fat",),
    "soft tissue": ("muscle", "vessel", "heart", "liver", "spleen", "kidney", "pancreas", "bile", "bowel", "lesion"),
    "bone": ("bone",),
}
PHANTOM_CLASSES: Mapping[str, tuple[int, ...]] = {
    name: tuple(TISSUES[label] for label in labels) for name, labels in _OF_PHANTOM.items()
}
"""The labels of anatomical phantoms that belong to each tissue of :data:`TISSUE_HU`."""


class HUError(NamedTuple):
    """HU error over some pixels."""

    bias: float
    """Mean of image - reference, HU."""
    std: float
    """Standard deviation of image - reference, HU."""
    pixels: int


def tissue_masks(reference: np.ndarray, *, valid: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Masks of the tissues of :data:`TISSUE_HU`, from the smoothed reference, without their borders.

    Classes from single pixels of a noisy reference would bias even a perfect result: a pixel would count as bone because its
    noise is high. The mean over 5 x 5 pixels nearly avoids this, and does not depend on the result.

    Args:
        reference: (x, y), HU.
        valid: bool (x, y); False on padding, which is not air.

    Returns:
        bool (x, y) by tissue; all False for a tissue that the slice does not hold.

    Raises:
        ValueError: ``reference`` is not a slice, or its sides are below 7.

    >>> slice_hu = np.full((40, 40), -1000.0)
    >>> slice_hu[10:30, 10:30] = 50
    >>> {name: int(mask.sum()) for name, mask in tissue_masks(slice_hu).items() if mask.any()}
    {'air': 820, 'soft tissue': 144}
    """
    reference = np.asarray(reference, dtype=np.float64)
    if reference.ndim != 2 or min(reference.shape) < SMOOTHING + 2:
        raise ValueError(f"Expected a slice (x, y) with sides of at least 7, but got shape {reference.shape}.")
    smooth = uniform_filter(reference, SMOOTHING, mode="mirror")
    masks = {name: (smooth >= low) & (smooth <= high) for name, (low, high) in TISSUE_HU.items()}
    return {name: eroded(mask if valid is None else mask & valid) for name, mask in masks.items()}


def tissue_masks_from_labels(
    labels: np.ndarray,
    classes: Mapping[str, Sequence[int]] = PHANTOM_CLASSES,
    *,
    valid: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Masks of the tissues from labels, without their borders, so that noise of the reference has no influence.

    Args:
        labels: (x, y), integers.
        classes: labels of each tissue; by default those of anatomical phantoms.
        valid: bool (x, y); False on padding.

    Returns:
        bool (x, y) by tissue.

    >>> labels = np.zeros((12, 12), dtype=np.uint8)
    >>> labels[2:9, 2:9] = 7
    >>> int(tissue_masks_from_labels(labels, {"lesion": [7]})["lesion"].sum())
    9
    """
    masks = {name: np.isin(labels, list(numbers)) for name, numbers in classes.items()}
    return {name: eroded(mask if valid is None else mask & valid) for name, mask in masks.items()}


def eroded(mask: np.ndarray) -> np.ndarray:
    """Take :data:`TISSUE_BORDER` pixels off the border of a mask (x, y), except along the edge of the image.

    >>> eroded(np.pad(np.ones((5, 5), dtype=bool), 3)).sum()
    np.int64(1)
    """
    return binary_erosion(mask, np.ones((3, 3)), iterations=TISSUE_BORDER, border_value=1)


def hu_error(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> HUError:
    """Bias and standard deviation of HU over a mask.

    Args:
        image: (x, y), HU.
        reference: the same shape, HU.
        mask: bool, the same shape.

    Raises:
        ValueError: shapes differ, or the mask has fewer than :data:`LEAST_PIXELS` pixels.

    >>> hu_error(np.full((8, 8), 52.0), np.full((8, 8), 50.0), np.ones((8, 8), dtype=bool))
    HUError(bias=2.0, std=0.0, pixels=64)
    """
    if not image.shape == reference.shape == mask.shape:
        raise ValueError(
            f"Expected image, reference and mask of the same shape, but got {image.shape}, {reference.shape} and {mask.shape}."
        )
    count = int(mask.sum())
    if count < LEAST_PIXELS:
        raise ValueError(f"Expected a mask of at least {LEAST_PIXELS} pixels, but got {count}.")
    error = image[mask].astype(np.float64) - reference[mask]
    return HUError(float(error.mean()), float(error.std()), count)
