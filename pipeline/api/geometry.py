"""The pixel size of a volume in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ct_cncl.pipeline.inference.memory import Given
from ct_cncl.transforms.series import voxel_spacing


def pixel_size(volume: Given, pixel_mm: float | Sequence[float] | None) -> tuple[float, float]:
    """Pixel size along columns and rows, mm: the volume's own, or the one that is said of an array.

    Raises:
        ValueError: none, two, or one that is no size.
    """
    if volume.has_geometry:
        if pixel_mm is not None:
            raise ValueError(f"Expected no pixel_mm, which the volume states itself, but got {pixel_mm}. Leave it out.")
        spacing = voxel_spacing(volume.order.affine)
        return float(spacing[0]), float(spacing[1])
    if pixel_mm is None:
        raise ValueError(
            "Expected the pixel size of an array, on which noise depends, but got none. Pass pixel_mm=0.7, or (columns, rows)."
        )
    both = (pixel_mm, pixel_mm) if isinstance(pixel_mm, (int, float)) else tuple(pixel_mm)
    if len(both) != 2 or not all(0 < float(each) < 100 for each in both):
        raise ValueError(f"Expected a pixel size in mm, one number or two, but got {pixel_mm}.")
    return float(both[0]), float(both[1])
