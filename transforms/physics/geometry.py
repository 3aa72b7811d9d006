"""Acquisition geometries: where the rays run.

Coordinates of every physics module: a slice is an array (x, y), axis 0 is x, axis 1 is y, with pixel size ``(dx, dy)``
in mm. The isocentre is the image centre, index ``((nx - 1) / 2, (ny - 1) / 2)``. Sinograms are (views, channels).

Every ray is a line ``x cos(phi) + y sin(phi) = t``: its normal's angle is ``phi = angles[view] + fan_angles[channel]``
and its distance from the isocentre ``t = positions_mm[channel]``. That is all that projectors need to know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

PixelSize = tuple[float, float]
"""(dx, dy) in mm, for array axes 0 and 1."""


_SMALLEST_MM, _LARGEST_MM = 0.01, 50.0
"""Pixels of patient CT are well inside this range; those of a coarse test object may come close to its ends."""


def check_pixel_size(pixel_mm: PixelSize | None) -> PixelSize:
    """Return ``pixel_mm`` as two floats, or refuse it: without a known spacing the physics would be wrong, not approximate.

    Args:
        pixel_mm: (dx, dy) in mm; numpy scalars are accepted.

    Raises:
        ValueError: if it is missing, is not two values, or one of them is not finite or outside 0.01 to 50 mm.

    >>> check_pixel_size((0.5, 1))
    (0.5, 1.0)
    """
    hint = "Give the pixel spacing of the scan (DICOM PixelSpacing, NIfTI pixdim)."
    if pixel_mm is None:
        raise ValueError(f"Expected pixel_mm as (dx, dy) in mm but got None. {hint}")
    values = tuple(float(value) for value in np.ravel(np.asarray(pixel_mm, dtype=float)))
    if len(values) != 2:
        raise ValueError(f"Expected pixel_mm as two values (dx, dy) in mm but got {len(values)}: {values}. {hint}")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"Expected pixel_mm with two finite values above 0 mm but got {values}. {hint}")
    if not all(_SMALLEST_MM <= value <= _LARGEST_MM for value in values):
        raise ValueError(
            f"Expected pixels of {_SMALLEST_MM:g} to {_LARGEST_MM:g} mm but got {values[0]:g} x {values[1]:g} mm. If "
            f"metres or microns were taken for mm, correct the header. {hint}"
        )
    return values[0], values[1]


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays over half a turn.

    View ``k`` has the angle ``pi * k / views``, so the range is [0, pi). The ray at detector position ``t`` consists
    of the points with ``x cos(angle) + y sin(angle) = t``. Channel centres are symmetric about the isocentre:
    ``t = (c - (channels - 1) / 2) * channel_spacing_mm``.

    Args:
        views: number of angles.
        channels: number of detector channels.
        channel_spacing_mm: distance between neighbouring channel centres, mm at the isocentre.

    Raises:
        ValueError: if a number is below 1 or the spacing is not finite and above 0.

    >>> ParallelBeam(views=4, channels=3, channel_spacing_mm=0.5).positions_mm
    array([-0.5,  0. ,  0.5])
    """

    views: int
    channels: int
    channel_spacing_mm: float

    def __post_init__(self) -> None:
        if self.views < 1 or self.channels < 1:
            raise ValueError(f"Expected views and channels of 1 or more but got {self.views} and {self.channels}.")
        if not (math.isfinite(self.channel_spacing_mm) and self.channel_spacing_mm > 0):
            raise ValueError(f"Expected channel_spacing_mm finite and above 0 but got {self.channel_spacing_mm}.")

    @classmethod
    def for_image(cls, shape: tuple[int, int], pixel_mm: PixelSize, views: int = 720) -> ParallelBeam:
        """Beam that covers the diagonal of an image, with channels as wide as its smaller pixel side.

        Args:
            shape: (nx, ny) of the slice.
            pixel_mm: (dx, dy) in mm.
            views: number of angles over [0, pi).

        Raises:
            ValueError: for a pixel size that is missing or not above 0.

        >>> ParallelBeam.for_image((512, 512), (0.8, 0.8))
        ParallelBeam(views=720, channels=727, channel_spacing_mm=0.8)
        """
        dx, dy = check_pixel_size(pixel_mm)
        spacing = min(dx, dy)
        diagonal = math.hypot(shape[0] * dx, shape[1] * dy)
        # One spare channel at each side, so that linear interpolation never runs off the detector.
        return cls(views=views, channels=math.ceil(diagonal / spacing) + 2, channel_spacing_mm=spacing)

    @property
    def angles(self) -> np.ndarray:
        """The view angles in radian, float64, shape (views,)."""
        return np.pi * np.arange(self.views) / self.views

    @property
    def fan_angles(self) -> np.ndarray:
        """All 0: the rays of a view are parallel; float64, shape (channels,)."""
        return np.zeros(self.channels)

    @property
    def isocentre_spacing_mm(self) -> float:
        """Distance between neighbouring rays at the isocentre, mm."""
        return self.channel_spacing_mm

    @property
    def positions_mm(self) -> np.ndarray:
        """The channel centres ``t`` in mm, float64, shape (channels,)."""
        return (np.arange(self.channels) - (self.channels - 1) / 2) * self.channel_spacing_mm


@dataclass(frozen=True)
class FanBeam:
    """Rays from a source that turns once around the isocentre.

    View ``k`` has the angle ``beta = 2 pi k / views``; its source stands at ``R (-sin(beta), cos(beta))``, so that the
    central ray of view 0 runs along -y and channels count in the direction of x. A channel lies at the fan angle gamma;
    the normal of its ray has the angle ``beta + gamma``, and its distance from the isocentre is ``R sin(gamma)``.

    Args:
        views: number of angles over a full turn.
        channels: number of detector channels.
        channel_spacing_mm: distance between neighbouring channel centres along the detector's arc or flat, mm.
        source_isocentre_mm: R, distance from the source to the isocentre, mm.
        source_detector_mm: distance from the source to the detector's centre, mm.
        detector: "curved", an arc around the source (equiangular), or "flat" (equidistant).

    Raises:
        ValueError: if a number is below 1, a length is not finite and above 0, the source is not farther from the detector
            than from the isocentre, ``detector`` is neither name, or the fan is 90 degrees wide or more.

    >>> fan = FanBeam.mayo()
    >>> round(float(np.degrees(fan.fan_angles[-1])), 2), round(float(fan.positions_mm[-1]), 1)
    (24.94, 250.9)
    """

    views: int
    channels: int
    channel_spacing_mm: float
    source_isocentre_mm: float
    source_detector_mm: float
    detector: Literal["curved", "flat"] = "curved"

    def __post_init__(self) -> None:
        if self.views < 1 or self.channels < 1:
            raise ValueError(f"Expected views and channels of 1 or more but got {self.views} and {self.channels}.")
        lengths = (self.channel_spacing_mm, self.source_isocentre_mm, self.source_detector_mm)
        if not all(math.isfinite(length) and length > 0 for length in lengths):
            raise ValueError(f"Expected channel spacing and source distances finite and above 0 mm but got {lengths}.")
        if self.source_detector_mm <= self.source_isocentre_mm:
            raise ValueError(
                f"Expected the detector beyond the isocentre but got {self.source_detector_mm} mm from the source to the "
                f"detector and {self.source_isocentre_mm} mm to the isocentre."
            )
        if self.detector not in {"curved", "flat"}:
            raise ValueError(f"Expected a curved or flat detector but got {self.detector!r}.")
        if abs(self.fan_angles[0]) >= np.pi / 4:
            raise ValueError(f"Expected a fan below 90 degrees but got {2 * np.degrees(abs(self.fan_angles[0])):.1f}.")

    @classmethod
    def mayo(cls, views: int = 1152) -> FanBeam:
        """The Siemens scanner of the Mayo low-dose data: 736 channels of 1.2858 mm on an arc, 595 and 1085.6 mm.

        Args:
            views: number of angles over a full turn; the scanner's own number is 1152.
        """
        return cls(views, 736, 1.2858, source_isocentre_mm=595.0, source_detector_mm=1085.6)

    @property
    def angles(self) -> np.ndarray:
        """The source's angles in radian, float64, shape (views,)."""
        return 2 * np.pi * np.arange(self.views) / self.views

    @property
    def fan_angles(self) -> np.ndarray:
        """The channels' angles gamma from the central ray in radian, float64, shape (channels,)."""
        offset = (
            (np.arange(self.channels) - (self.channels - 1) / 2) * self.channel_spacing_mm / self.source_detector_mm
        )
        return offset if self.detector == "curved" else np.arctan(offset)

    @property
    def positions_mm(self) -> np.ndarray:
        """The rays' signed distances from the isocentre in mm, float64, shape (channels,)."""
        return self.source_isocentre_mm * np.sin(self.fan_angles)

    @property
    def isocentre_spacing_mm(self) -> float:
        """Distance between the central ray and its neighbours at the isocentre, mm."""
        return self.channel_spacing_mm * self.source_isocentre_mm / self.source_detector_mm


Geometry = ParallelBeam | FanBeam
