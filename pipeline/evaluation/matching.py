"""Match scans and slices of a method to those of the reference, by patient and by position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.names import same_letters
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.series import ScanSource, find_scans
from ct_cncl.transforms.series.grid import TOLERANCE_MM, SliceGrid
from ct_cncl.transforms.series.slices import DicomSlices, Slices, VolumeSlices, open_slices
from ct_cncl.transforms.series.values import RESULT

_KINDS = (RESULT, "noise", "content", "disagreement")
"""Kinds of results of ``ct-cncl denoise``, recognized by the end of a volume's name, and by ImageType in DICOM."""
_SAMPLES = 5


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """An opened scan with its patient and the positions of its slices.

    Attributes:
        slices: the opened scan.
        patient: patient from header, table or file name. Not for logs.
        known: whether header or table name the patient; a file name only suggests one.
        grid: positions of its slices.
    """

    slices: Slices
    patient: str = field(repr=False)
    known: bool
    grid: SliceGrid

    @property
    def name(self) -> str:
        """The user's own name of the file or folder."""
        return self.slices.source.path.name


def locate(
    path: Path,
    patients: PatientFinder,
    scratch: Path,
    *,
    kinds: Sequence[str] = (RESULT,),
    check_hu: bool = True,
) -> dict[str, list[OpenedScan]]:
    """Open every scan under a path.

    Args:
        path: a file or folder of DICOM, NIfTI or another kind that :func:`ct_cncl.transforms.series.find_scans` accepts.
        patients: finds the patient of a scan.
        scratch: an existing folder, which must exist as long as the scans are used.
        kinds: kinds out of :data:`_KINDS`; with "denoised" alone, every scan counts as one.
        check_hu: refuse results that are not in HU; False for label volumes.

    Returns:
        Scans by kind; "denoised" is whatever is of no other kind.

    Raises:
        ScanError: nothing was found, or a scan is unreadable or not in HU.
        DataError: the patient of a scan cannot be found.
    """
    found: dict[str, list[OpenedScan]] = {kind: [] for kind in kinds}
    for number, source in enumerate(find_scans(path)):
        kind = kind_of(source) if len(kinds) > 1 else RESULT
        if kind not in found:
            continue
        folder = scratch / f"{len(list(scratch.iterdir()))}_{number}"
        folder.mkdir()
        slices = open_slices(source, folder, check_hu=check_hu)
        if kind == RESULT and check_hu:
            _refuse_stored_values(slices)
        header = _header_patient(source)
        patient = patients(source.path, header)
        found[kind].append(_located(slices, patient, known=bool(header) or patients.uses_table))
    return found


def kind_of(source: ScanSource) -> str:
    """The kind of a method's file, out of :data:`_KINDS`; "denoised" unless it is marked otherwise."""
    if source.kind == "dicom":
        header = pydicom.dcmread(source.files[0], stop_before_pixels=True, specific_tags=["ImageType"])
        stated = {str(word).lower() for word in header.get("ImageType") or []}
        return next((kind for kind in _KINDS[1:] if kind in stated), RESULT)
    return next((kind for kind in _KINDS[1:] if source.name.endswith(f"_{kind}")), RESULT)


def _header_patient(source: ScanSource) -> str | None:
    if source.kind != "dicom":
        return None
    header = pydicom.dcmread(source.files[0], stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip() or None


def _located(slices: Slices, patient: str, *, known: bool) -> OpenedScan:
    affine = slices.order.affine
    flipped = slices.order.forward[slices.order.axis, 1] < 0
    if isinstance(slices, DicomSlices):
        if slices.directions > 1:
            raise DataError(
                f"Expected slices in one direction in {slices.source.path.name}, but got {slices.directions}. Evaluate each by itself."
            )
        stored = slices.series.affine
        first = stored[:3] @ [0, 0, slices.count - 1 if flipped else 0, 1]
        shift = affine[:3, 3] - first  # from the stored first pixel to the reoriented one, the same in all slices
        corners = np.array([frame.position * [-1, -1, 1] for frame in slices.frames]) + shift
        shape = (slices.frames[0].shape[1], slices.frames[0].shape[0])
        turned = slices.order.forward[0, 0] == 1
        shape = shape[::-1] if turned else shape
        phases = slices.phase_of_each
    else:
        assert isinstance(slices, VolumeSlices)
        numbers = np.arange(slices.count)[:: -1 if flipped else 1]
        corners = affine[:3, 3] + numbers[:, None] * affine[:3, 2]
        lengths = [slices.volume.shape[axis] for axis in np.argsort(slices.order.forward[:, 0])]
        shape = (lengths[0], lengths[1])
        phases = np.zeros(slices.count, dtype=int)
    return OpenedScan(slices, patient, known, SliceGrid(corners, affine[:3, :2].T.copy(), shape, phases))


def _refuse_stored_values(slices: Slices) -> None:
    """Refuse a scan that is not in HU: no value below 0 in several slices over its length, and not constant."""
    numbers = np.unique(np.linspace(0, slices.count - 1, _SAMPLES).round().astype(int))
    low, high = np.inf, -np.inf
    for number in numbers.tolist():
        try:
            hu = slices.read(number).hu
        except ValueError:
            continue  # that slice is reported separately
        low, high = min(low, float(hu.min())), max(high, float(hu.max()))
    if low >= 0 and high > low:
        raise DataError(
            f"Expected HU in {slices.source.path.name}, where air is about -1000, but got values from {low:g} to {high:g}: they look "
            "like stored values without rescale (slope and intercept not applied), or an image scaled for display. Convert again."
        )


def match(reference: Sequence[OpenedScan], others: Sequence[OpenedScan], *, name: str) -> list[OpenedScan]:
    """For every scan of the reference, find the scan of a method with the same patient, pixels and slice positions.

    If headers or a table name the patients of both, these must be equal. If only file names suggest a patient, names must be
    related (``scan`` and ``scan_denoised``, or the same beginning up to the first underscore), unless there is one scan each.
    If several scans match, the one whose name extends the reference's is taken.

    Args:
        reference: scans of the reference.
        others: scans of one method.
        name: name of the method, for messages.

    Returns:
        The scans in the order of ``reference``.

    Raises:
        DataError: a scan has no match or several, or matches two reference scans; the message says what differs.
    """
    alone = len(reference) == 1 and len(others) == 1
    chosen = []
    for scan in reference:
        at_place = [other for other in others if any(k is not None for k in scan.grid.partners(other.grid))]
        same = [other for other in at_place if not (scan.known and other.known and scan.patient != other.patient)]
        if at_place and not same:
            raise DataError(
                f"Expected {at_place[0].name} of {name} to be of the patient of {scan.name}, but its header or the table names "
                "another. Compare scans of one patient only."
            )
        if not alone:
            same = _by_name(scan, same)
        if len(same) != 1:
            raise DataError(_why_not(scan, same, others, name))
        chosen.append(same[0])
    for other in chosen:
        if sum(other is one for one in chosen) > 1:
            raise DataError(
                f"Expected one reference scan for {other.name} of {name}, but several have its geometry. Give matching scans matching names."
            )
    return chosen


def _by_name(scan: OpenedScan, others: list[OpenedScan]) -> list[OpenedScan]:
    """Scans whose patient is known to be the same, or whose name is related; if there are several, those closest in name."""
    own = scan.slices.source.name
    sure = [other for other in others if scan.known and other.known]
    related = [other for other in others if _related(own, other.slices.source.name)]
    guessed = [other for other in others if other.patient == scan.patient]
    usable = sure or related or guessed
    if len(usable) > 1:
        names = [other for other in usable if _related(own, other.slices.source.name)] or usable
        here = same_letters(scan.slices.source.relative)
        folder = [other for other in names if same_letters(other.slices.source.relative) == here]
        names = folder if len(folder) == 1 else names
        wanted = {same_letters(own), same_letters(f"{own}_{RESULT}")}
        exact = [other for other in names if same_letters(other.slices.source.name) in wanted]
        usable = exact if len(exact) == 1 else names
    return usable


def _related(own: str, other: str) -> bool:
    """Whether one name extends the other.

    >>> _related("scan", "scan_denoised"), _related("scan1", "scan12")
    (True, False)
    """
    short, long = sorted((same_letters(own), same_letters(other)), key=len)
    return long == short or (long.startswith(short) and not long[len(short)].isalnum())


def _why_not(scan: OpenedScan, found: Sequence[OpenedScan], others: Sequence[OpenedScan], name: str) -> str:
    if len(found) > 1:
        several = ", ".join(other.name for other in found[:4])
        return (
            f"Expected one scan of {name} for {scan.name}, but {several} all have its geometry. Name a folder that holds one "
            "result per scan, named like it, or name the patients with --patients."
        )
    of_patient = [other for other in others if other.patient == scan.patient]
    of_patient += [other for other in others if _related(scan.slices.source.name, other.slices.source.name)]
    if not of_patient:
        of_patient = list(others[:1]) if len(others) == 1 else []
    if not of_patient:
        return (
            f"Expected a scan of {name} for {scan.name}, but none has its patient or name. Add it, give it a matching name, or say whose "
            "files are with --patients or --patient-from-name."
        )
    return f"Expected {of_patient[0].name} of {name} to have the geometry of {scan.name}, but {difference(scan, of_patient[0])}."


def difference(scan: OpenedScan, other: OpenedScan) -> str:
    """Describe how the geometries of two scans differ."""
    ours, theirs = scan.grid, other.grid
    if ours.shape != theirs.shape:
        return f"slices are {ours.shape[0]} x {ours.shape[1]} and {theirs.shape[0]} x {theirs.shape[1]} pixels"
    if not ours.same_plane(theirs):
        pixel, of_other = ("{:.4g} x {:.4g}".format(*each.pixel_mm) for each in (ours, theirs))
        return f"pixels are {pixel} and {of_other} mm" if pixel != of_other else "slices have different orientations"
    nearest = np.linalg.norm(ours.corners[:, None] - theirs.corners[None], axis=2).min()
    most, others = (max(len(each.at(corner)) for corner in each.corners) for each in (ours, theirs))
    if nearest <= TOLERANCE_MM and most != others:
        return f"they have {most} and {others} slices at one place; evaluate each phase by itself"
    return (
        f"no slices coincide: the nearest are {nearest:.3g} mm apart"
        if nearest > TOLERANCE_MM
        else ("names and patients do not match; use matching names, or --patients")
    )


def left_over(chosen: Iterable[OpenedScan], others: Sequence[OpenedScan]) -> list[str]:
    """Names of scans that match no scan of the reference."""
    used = {id(one) for one in chosen}
    return [other.name for other in others if id(other) not in used]
