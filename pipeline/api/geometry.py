"""The pixel size of a volume in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ct_cncl.pipeline.inference.memory import Given
from ct_cncl.transforms.series import voxel_spacing


def pixel_size(volume: Given, pixel_mm: float | Sequence[float] | None) -> tuple[float, float]:
    """Pixel size along columns and rows in mm: that of the volume, or the one given for an array.

    Raises:
        ValueError: an array came without a pixel size, a volume that states its own came with one, or the size is out of range.
    """
    if volume.has_geometry:
        if pixel_mm is not None:
            raise ValueError(f"Expected no pixel_mm, since the volume states it, but got {pixel_mm}. Omit it.")
        spacing = voxel_spacing(volume.order.affine)
        return float(spacing[0]), float(spacing[1])
    if pixel_mm is None:
        raise ValueError(
            "Expected the pixel size of the array in mm, on which noise depends, but got none. Pass for example pixel_mm=0.7, or (columns, rows)."
        )
    both = (pixel_mm, pixel_mm) if isinstance(pixel_mm, (int, float)) else tuple(pixel_mm)
    if len(both) != 2 or not all(0 < float(each) < 100 for each in both):
        raise ValueError(f"Expected a pixel size in mm, one number or two, above 0 and below 100, but got {pixel_mm}.")
    return float(both[0]), float(both[1])
