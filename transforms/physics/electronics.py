"""Default electronic noise of a scan.

One ray of the simulation stands for many readings of the detector, each with its own electronic noise: channels of 0.6 mm
at the isocentre, rows of 0.6 mm, about 1152 readings per turn. The variance of their sum is their number times that of one.
"""

from __future__ import annotations

from .geometry import Geometry

MOST_OF_QUANTUM = 0.004
"""Largest ratio of electronic to quantum noise (variances) at full dose, on average over soft tissue; protocols stay
below it. The ratio is many times larger where few photons arrive, and five times larger in the noise inserted for a quarter of
the dose."""

VARIANCE_PER_READING = 100.0
"""Ne of one reading, photons^2: a standard deviation of 10 photons, typical of energy-integrating detectors of 2005 to
2020."""
CHANNEL_MM = ROW_MM = 0.6
READINGS_PER_HALF_TURN = 576
DEFAULT_THICKNESS_MM = 1.0
"""Used if the slice thickness is unknown: thin, to err towards too little electronic noise."""
LARGEST_THICKNESS_MM = 8.0


def usual_electronic_variance(beam: Geometry, thickness_mm: float | None) -> float:
    """Typical Ne of a ray of ``beam``, photons^2, for a slice thickness in mm (None: unknown).

    >>> from .geometry import ParallelBeam
    >>> usual_electronic_variance(ParallelBeam(576, 9, 0.6), 0.6), usual_electronic_variance(ParallelBeam(576, 9, 0.6), 6.0)
    (100.0, 1000.0)
    """
    thickness = DEFAULT_THICKNESS_MM if thickness_mm is None else min(thickness_mm, LARGEST_THICKNESS_MM)
    views = beam.views if beam.angles[-1] < 3.2 else beam.views / 2  # a full turn measures each ray twice
    readings = beam.isocentre_spacing_mm / CHANNEL_MM * thickness / ROW_MM * READINGS_PER_HALF_TURN / views
    return round(VARIANCE_PER_READING * max(readings, 1.0), 3)
