"""Pairs low- and full-dose scans with the same patient, frame of reference, kernel and slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.dose_names import without_dose_words
from ct_cncl.transforms.series.grid import SliceGrid

_MOST_NAMED = 10


@dataclass(frozen=True)
class PairCandidate:
    """What pairing needs to know about a scan.

    Attributes:
        source: the file, or the folder of a DICOM series.
        patient: the patient. Must not be logged.
        shape: (x, y, z).
        affine: (4, 4), voxel -> RAS mm.
        name: name of the scan in error messages; empty to use that of ``source``.
        frame: FrameOfReferenceUID, empty if not stated; positions in different frames of reference cannot be compared.
        kernel: reconstruction kernel; empty if not stated.
        problem: why the scan cannot be paired at all; empty if it can.
    """

    source: Path
    patient: str = field(repr=False)
    shape: tuple[int, ...]
    affine: np.ndarray
    name: str = ""
    frame: str = field(default="", repr=False)
    kernel: str = ""
    problem: str = ""

    def __str__(self) -> str:
        return self.name or self.source.name

    @property
    def grid(self) -> SliceGrid:
        """The grid of its slices."""
        return SliceGrid.of_volume(self.affine, self.shape)

    def same_geometry(self, other: PairCandidate) -> bool:
        """Whether both have the same slices with the same pixel grid."""
        return self.shape == other.shape and self.grid.same_slices(other.grid)


def match_pairs(
    low: Sequence[PairCandidate], full: Sequence[PairCandidate], *, across_frames: bool = False
) -> list[tuple[int, int]]:
    """Pair every full-dose scan with the low-dose scan of the same patient, frame of reference, kernel and slices.

    Frames of reference and kernels are compared only if both scans state them. Among several candidates, those with the same stated
    frame of reference are preferred, then those with the same file name, then those whose names differ only in the dose
    (full_3mm_sharp, quarter_3mm_sharp). If several are left, the pair is refused.

    Args:
        low: low-dose scans.
        full: full-dose scans.
        across_frames: compare positions in different frames of reference anyway.

    Returns:
        Index pairs (low, full), in the order of ``full``.

    Raises:
        DataError: a scan has no partner, a partner with other slices, or several candidates; the message names the scans.
    """
    problems = [f"Expected {scan} to be a volume, but: {scan.problem}." for scan in (*low, *full) if scan.problem]
    pairs: list[tuple[int, int]] = []
    tried: set[int] = set()
    for full_number, scan in enumerate(full):
        of_patient = [number for number, other in enumerate(low) if other.patient == scan.patient]
        tried |= set(of_patient)
        candidates = _candidates(scan, low, of_patient, across_frames=across_frames)
        if len(candidates) == 1:
            pairs.append((candidates[0], full_number))
        elif not scan.problem and not any(low[number].problem for number in of_patient):
            problems.append(
                _why_not(scan, [low[number] for number in of_patient], [low[number] for number in candidates])
            )
    problems += _left_over(low, full, pairs, tried, told=bool(problems))
    if problems:
        more = f" And {len(problems) - _MOST_NAMED} more." if len(problems) > _MOST_NAMED else ""
        raise DataError(" ".join(problems[:_MOST_NAMED]) + more)
    return pairs


def _candidates(
    scan: PairCandidate, low: Sequence[PairCandidate], of_patient: Sequence[int], *, across_frames: bool
) -> list[int]:
    found = [
        number
        for number in of_patient
        if low[number].same_geometry(scan)
        and not (scan.problem or low[number].problem)
        and (across_frames or _agree(low[number].frame, scan.frame))
        and _agree(low[number].kernel, scan.kernel)
    ]
    rules = (lambda one: one.frame, lambda one: one.source.name, lambda one: without_dose_words(str(one)))
    for rule in rules:
        alike = [number for number in found if rule(low[number]) == rule(scan)]
        if len(found) > 1 and alike:
            found = alike
    return found


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other


def _left_over(
    low: Sequence[PairCandidate],
    full: Sequence[PairCandidate],
    pairs: Sequence[tuple[int, int]],
    tried: set[int],
    *,
    told: bool,
) -> list[str]:
    """Messages about low-dose scans that are not in exactly one pair, unless other messages already concern their patient."""
    problems = []
    for number, scan in enumerate(low):
        partners = [str(full[other]) for mine, other in pairs if mine == number]
        if len(partners) > 1:
            what = f"more than one full-dose partner ({', '.join(partners)})"
        elif not partners and not scan.problem and not (told and number in tried):
            what = "no full-dose partner"
        else:
            continue
        problems.append(f"Expected one full-dose scan for every low-dose scan, but {scan} has {what}.")
    return problems


def _why_not(scan: PairCandidate, of_patient: Sequence[PairCandidate], candidates: Sequence[PairCandidate]) -> str:
    if candidates:
        names = ", ".join(map(str, candidates))
        return (
            f"Expected one low-dose partner for {scan}, but {names} all have its patient and geometry. "
            "Give partners the same name, or prepare them one by one."
        )
    if not of_patient:
        return (
            f"Expected a low-dose partner of the same patient for {scan}, but there is none. Add it, or name "
            "the patients with --patients table.csv or --patient-from-name RULE."
        )
    other = min(of_patient, key=lambda one: _distance(scan, one))
    if not scan.same_geometry(other):
        return _other_slices(scan, other)
    if not _agree(scan.kernel, other.kernel):
        return (
            f"Expected {scan} and its low-dose partner {other} to have the same kernel, but got {scan.kernel} and "
            f"{other.kernel}. Pair reconstructions with the same kernel."
        )
    return (
        f"Expected {scan} and its low-dose partner {other} to share a frame of reference, but they have two, in "
        "which equal positions need not be the same place. If both come from one acquisition, pass --across-frames."
    )


def _distance(scan: PairCandidate, other: PairCandidate) -> tuple[bool, bool, float]:
    """How much a scan of the same patient differs from a partner, as a sort key."""
    return (
        scan.shape[:2] != other.shape[:2],
        not _agree(scan.kernel, other.kernel),
        abs(scan.shape[2] - other.shape[2]) + float(np.abs(scan.affine - other.affine).max()),
    )


def _other_slices(scan: PairCandidate, other: PairCandidate) -> str:
    shared = sum(place is not None for place in scan.grid.partners(other.grid))
    where = ""
    if scan.grid.same_plane(other.grid):
        where = (
            f" Only {shared} of its {scan.shape[2]} slices lie at the position of one of the other's {other.shape[2]}."
        )
    if other.shape != scan.shape:
        return (
            f"Expected {scan} and its low-dose partner {other} to have the same shape, but got {scan.shape} "
            f"and {other.shape}.{where} Pair scans of the same slices."
        )
    difference = float(np.abs(scan.affine - other.affine).max())
    return (
        f"Expected {scan} and its low-dose partner {other} to have the same affine, but entries differ by "
        f"up to {difference:.3g} mm.{where} Pair scans with the same geometry."
    )
