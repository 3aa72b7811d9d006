"""The default electronic noise of a scan.

A virtual ray of the simulation stands for many readings of the detector, each with electronic noise of its own: a channel of
0.6 mm at the isocentre, rows of 0.6 mm, some 1152 readings a turn. The sum over the readings has as many times the variance.
"""

from __future__ import annotations

from .geometry import Geometry

MOST_OF_QUANTUM = 0.004
"""Electronic noise of a full dose is at most so much of its quantum noise, as variances, on average over soft tissue: protocols
keep it there. Where few photons arrive it is a multiple of that, at a quarter of the dose five times as much."""

VARIANCE_PER_READING = 100.0
"""Ne of one reading, photons^2: 10 photons, usual for energy-integrating detectors of 2005 to 2020."""
CHANNEL_MM = ROW_MM = 0.6
READINGS_PER_HALF_TURN = 576
DEFAULT_THICKNESS_MM = 1.0
"""Where the slice's thickness is not known: thin, so that rather too little is added."""
LARGEST_THICKNESS_MM = 8.0


def usual_electronic_variance(beam: Geometry, thickness_mm: float | None) -> float:
    """Ne of a ray of ``beam``, photons^2, for slices of a thickness in mm (None: not known).

    >>> from .geometry import ParallelBeam
    >>> usual_electronic_variance(ParallelBeam(576, 9, 0.6), 0.6), usual_electronic_variance(ParallelBeam(576, 9, 0.6), 6.0)
    (100.0, 1000.0)
    """
    thickness = DEFAULT_THICKNESS_MM if thickness_mm is None else min(thickness_mm, LARGEST_THICKNESS_MM)
    views = beam.views if beam.angles[-1] < 3.2 else beam.views / 2  # a full turn measures each ray twice
    readings = beam.isocentre_spacing_mm / CHANNEL_MM * thickness / ROW_MM * READINGS_PER_HALF_TURN / views
    return round(VARIANCE_PER_READING * max(readings, 1.0), 3)
