"""Errors of HU in the tissues of a slice. Slices are arrays (x, y), HU. Pure functions."""

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
"""Classes by the smoothed reference's HU; gaps between them leave out what is mixed."""
SMOOTHING = 5
"""Side, pixels, of the mean that decides on the class: noise of single pixels must not."""
TISSUE_BORDER = 2
"""Pixels taken off at the border of each class: partial volume and blurred edges are no error of the tissue's HU."""
LEAST_PIXELS = 50
"""Fewer pixels of a class say nothing about it."""
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
    """Error of HU over some pixels."""

    bias: float
    """Mean of image - reference, HU."""
    std: float
    """Standard deviation of image - reference, HU."""
    pixels: int


def tissue_masks(reference: np.ndarray, *, valid: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Where each tissue of :data:`TISSUE_HU` is, from the smoothed reference, borders taken off.

    Classes from single pixels of a noisy reference bias even a perfect result: a pixel is counted as bone because its noise is
    high there. A mean over 5 x 5 pixels is nearly free of that, and of the result.

    Args:
        reference: (x, y), HU.
        valid: bool (x, y); False on padding, which is no air.

    Returns:
        bool (x, y) by tissue; all False where there is none.

    Raises:
        ValueError: no slice, or sides below 7.

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
    """Where each tissue is by labels, borders taken off; the reference's noise has no say in it.

    Args:
        labels: (x, y), whole numbers.
        classes: the numbers of each tissue; those of anatomical phantoms where nothing else is said.
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
    """True where the mask (x, y) holds in the whole square of ``2 * BORDER + 1`` pixels; beyond the edge it holds everywhere.

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
        ValueError: shapes differ, or fewer than :data:`LEAST_PIXELS` pixels in the mask.

    >>> hu_error(np.full((8, 8), 52.0), np.full((8, 8), 50.0), np.ones((8, 8), dtype=bool))
    HUError(bias=2.0, std=0.0, pixels=64)
    """
    if not image.shape == reference.shape == mask.shape:
        raise ValueError(f"Expected one shape, but got {image.shape}, {reference.shape} and {mask.shape}.")
    count = int(mask.sum())
    if count < LEAST_PIXELS:
        raise ValueError(f"Expected at least {LEAST_PIXELS} pixels, but got {count}.")
    error = image[mask].astype(np.float64) - reference[mask]
    return HUError(float(error.mean()), float(error.std()), count)
