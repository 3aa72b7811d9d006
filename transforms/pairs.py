"""Low- and full-dose scans of the same patient and geometry, found in two folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ct_cncl.transforms.datalist import DataError

AFFINE_TOLERANCE_MM = 1e-2
"""Largest difference of any affine entry (mm) at which two scans count as the same geometry."""


@dataclass(frozen=True)
class Located:
    """What pairing needs to know of a scan: where it is, whose it is, and its voxel grid (affine: voxel to RAS mm)."""

    source: Path
    patient: str
    shape: tuple[int, ...]
    affine: np.ndarray

    def same_geometry(self, other: Located) -> bool:
        """Whether both grids have one shape and one affine, to ``AFFINE_TOLERANCE_MM``."""
        return self.shape == other.shape and bool(
            np.allclose(self.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE_MM)
        )


def match_pairs(low: Sequence[Located], full: Sequence[Located]) -> list[tuple[int, int]]:
    """Pair every full-dose scan with the low-dose scan of the same patient and geometry.

    Several candidates are told apart by equal file names, and refused where that does not decide.

    Args:
        low: low-dose scans.
        full: full-dose scans.

    Returns:
        Index pairs (low, full), in the order of ``full``.

    Raises:
        DataError: a scan without a partner, a partner with another shape or affine, or more than one candidate.
    """
    pairs = []
    for full_number, scan in enumerate(full):
        of_patient = [number for number, other in enumerate(low) if other.patient == scan.patient]
        candidates = [number for number in of_patient if low[number].same_geometry(scan)]
        if len(candidates) > 1:
            same_name = [number for number in candidates if low[number].source.name == scan.source.name]
            candidates = same_name if len(same_name) == 1 else candidates
        if len(candidates) != 1:
            raise DataError(
                _why_not(scan, [low[number] for number in of_patient], [low[number] for number in candidates])
            )
        pairs.append((candidates[0], full_number))
    taken = [number for number, _ in pairs]
    for number, scan in enumerate(low):
        if taken.count(number) != 1:
            what = "no full-dose partner" if number not in taken else "more than one full-dose partner"
            raise DataError(f"Expected one full-dose scan for every low-dose scan, but {scan.source.name} has {what}.")
    return pairs


def _why_not(scan: Located, of_patient: Sequence[Located], candidates: Sequence[Located]) -> str:
    if candidates:
        names = ", ".join(other.source.name for other in candidates)
        return (
            f"Expected one low-dose partner for {scan.source.name}, but {names} all have its patient and geometry. "
            "Name partners alike, or prepare them one by one."
        )
    if not of_patient:
        return (
            f"Expected a low-dose partner of the same patient for {scan.source.name}, but there is none. Add it, or say "
            "whose the files are with --patients table.csv or --patient-from-name RULE."
        )
    other = of_patient[0]
    if other.shape != scan.shape:
        return (
            f"Expected {scan.source.name} and its low-dose partner {other.source.name} to have one shape, but got {scan.shape} "
            f"and {other.shape}. Pair scans of the same slices."
        )
    difference = np.abs(scan.affine - other.affine).max()
    return (
        f"Expected {scan.source.name} and its low-dose partner {other.source.name} to have one affine, but entries differ by "
        f"up to {difference:.3g} mm. Pair scans of the same geometry."
    )
