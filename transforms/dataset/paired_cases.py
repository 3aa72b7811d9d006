"""Real pairs as cases: low- and full-dose scans from two folder trees, or side by side in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.dataset.dose_names import dose_of
from ct_cncl.transforms.dataset.matching import PairCandidate, match_pairs
from ct_cncl.transforms.dataset.pair_check import check_pair
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.dataset.simulated_cases import Case, Pair, scan_slices
from ct_cncl.transforms.series import ScanSource, find_scans, read_scan
from ct_cncl.transforms.series.acquisition import read_acquisition
from ct_cncl.transforms.series.dicom import open_series
from ct_cncl.transforms.series.headers import read_header
from ct_cncl.transforms.series.text import one_text


@dataclass(frozen=True)
class ScansByDose:
    """Scans by dose.

    Attributes:
        low: low-dose scans of all groups.
        full: full-dose scans by group (training, validation, test).
        others: names of scans whose dose is unknown.
    """

    low: list[ScanSource]
    full: list[list[ScanSource]]
    others: list[str] = field(default_factory=list)


def scans_in_two_places(low: Sequence[str | Path], full: Sequence[Sequence[str | Path]]) -> ScansByDose:
    """Find scans whose dose is known from the tree in which they lie.

    Args:
        low: files or folders of low-dose scans, of all groups.
        full: files or folders of full-dose scans by group.

    Raises:
        ScanError: a path has no scans, or a file cannot be read.
    """
    return ScansByDose(
        [source for path in low for source in find_scans(path)],
        [[source for path in group for source in find_scans(path)] for group in full],
    )


def scans_in_one_place(groups: Sequence[Sequence[str | Path]]) -> ScansByDose:
    """Find scans of both doses that lie side by side; the dose is taken from series descriptions, then from file and folder names.

    Args:
        groups: files or folders by group.

    Raises:
        ScanError: a path has no scans, or a file cannot be read.
        DataError: a group has no scans of one of the doses.
    """
    trees = ScansByDose([], [])
    for group in groups:
        sources = [source for path in group for source in find_scans(path)]
        doses = [dose_of(_names(source)) for source in sources]
        for dose, words in (("full", "full dose, FD, normal"), ("low", "low dose, quarter, QD")):
            if sources and dose not in doses:
                raise DataError(
                    f"Expected {dose}-dose scans in {group[0]}, but no series description or folder name of its {counted(len(sources), 'scan')} "
                    f"states that dose ({words}). Rename the folders, or give two trees: SRC --low LOW."
                )
        trees.low.extend(source for source, dose in zip(sources, doses) if dose == "low")
        trees.full.append([source for source, dose in zip(sources, doses) if dose == "full"])
        trees.others.extend(_name(source) for source, dose in zip(sources, doses) if not dose)
    return trees


def paired_cases(
    trees: ScansByDose, *, patients: PatientFinder, dose_fraction: float | None, across_frames: bool = False
) -> list[list[Case]]:
    """Pair low- and full-dose scans by patient, frame of reference, kernel and slices; pixels of DICOM series are read later.

    Args:
        trees: from :func:`scans_in_two_places` or :func:`scans_in_one_place`.
        patients: finds the patient of a scan.
        dose_fraction: dose fraction of the low-dose scans; None if unknown.
        across_frames: also pair scans in different frames of reference.

    Returns:
        Cases by group.

    Raises:
        ScanError: a scan cannot be read.
        DataError: a scan has no partner, a partner with other slices, or several candidates; the message names the scans.
    """
    full_sources = [(number, source) for number, group in enumerate(trees.full) for source in group]
    low_scans = [_locate(source, patients) for source in trees.low]
    full_scans = [_locate(source, patients) for _, source in full_sources]
    groups: list[list[Case]] = [[] for _ in trees.full]
    for low_number, full_number in match_pairs(low_scans, full_scans, across_frames=across_frames):
        group, source = full_sources[full_number]
        make = _paired_maker(trees.low[low_number], source)
        groups[group].append(Case(full_scans[full_number].patient, source.name, dose_fraction, make))
    return groups


def _locate(source: ScanSource, patients: PatientFinder) -> PairCandidate:
    if source.kind != "dicom":
        scan = read_scan(source)
        return PairCandidate(
            source.path, patients(source.path, scan.patient), scan.hu.shape, scan.affine, _name(source)
        )
    series = open_series(source)
    headers = list(series.headers.values())
    stated = [str(header.get("PatientID") or "").strip() for header in headers]
    frames = {str(header.get("FrameOfReferenceUID") or "") for header in headers}
    copies = f"second copies of {counted(len(series.copies), 'image')}" if series.copies else ""
    return PairCandidate(
        source.path,
        patients(source.path, next(filter(None, stated), None)),
        series.shape,
        series.affine,
        _name(source),
        frame=frames.pop() if len(frames) == 1 else "",
        kernel=read_acquisition(headers).kernel,
        problem=copies or series.doubled or series.irregular,
    )


def _name(source: ScanSource) -> str:
    """Path of a scan below the searched folder, by which users can find it."""
    return PurePosixPath(source.relative, source.name).as_posix()


def _names(source: ScanSource) -> list[str]:
    """Names that may state the dose of a scan, in order of precedence."""
    description = one_text(read_header(source.files[0]).get("SeriesDescription")) if source.kind == "dicom" else ""
    return [description, source.name, *reversed(PurePosixPath(source.relative).parts)]


def _paired_maker(low: ScanSource, full: ScanSource) -> Callable[[], Pair]:
    def make() -> Pair:
        scan = read_scan(full)
        image, _ = scan_slices(read_scan(low))
        label, order = scan_slices(scan)
        check_pair(image, label, (_name(low), _name(full)))
        provenance = {"truth": "scan", "low_dose_source": low.name}
        return Pair(image, label, order.affine, provenance, acquisition=scan.acquisition)

    return make
