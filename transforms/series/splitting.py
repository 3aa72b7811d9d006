"""Splits the files of one SeriesInstanceUID into scans with one study, one series number and one geometry each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.bounded import check_size
from ct_cncl.transforms.series.headers import damaged, grids_of, same_numbers, stated_series_number
from ct_cncl.transforms.series.orientation import slices_last
from ct_cncl.transforms.series.origin import Origin, origin_of
from ct_cncl.transforms.series.scan import ScanError, ScanSource


@dataclass(frozen=True)
class Member:
    """The part of a CT header that is kept while the other files are read.

    Attributes:
        path: the file.
        uid: SeriesInstanceUID.
        number: SeriesNumber; None if not stated.
        study: StudyInstanceUID.
        frame_of_reference: FrameOfReferenceUID.
        shape: (rows, columns).
        grid: orientation and pixel spacing, from :func:`ct_cncl.transforms.series.headers.grids_of`.
        frames: number of images in the file.
        origin: where the image comes from.
    """

    path: Path
    uid: str
    number: int | None
    study: str
    frame_of_reference: str
    shape: tuple[int, int]
    grid: np.ndarray
    frames: int
    origin: Origin

    def same_grid(self, other: Member) -> bool:
        """Whether both have the same size, orientation and pixel spacing."""
        return self.shape == other.shape and same_numbers(self.grid, other.grid)


def member_of(file: Path, header: Dataset) -> Member:
    """Read from the header of a CT image what is needed to assign it to a scan.

    Raises:
        ScanError: the SeriesInstanceUID is missing, or a value cannot be read.
    """
    uid = str(header.get("SeriesInstanceUID") or "")
    if not uid:
        raise damaged(file, "no SeriesInstanceUID")
    try:
        shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
        check_size(file, *shape)
        grid = grids_of(header)
        frames = int(header.get("NumberOfFrames") or 1)
        names = (str(header.get("StudyInstanceUID") or ""), str(header.get("FrameOfReferenceUID") or ""))
    except ScanError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged values
        raise damaged(file, error) from error
    return Member(file, uid, stated_series_number(header), *names, shape, grid, frames, origin_of(header))


def split(members: Sequence[Member], root: Path) -> list[ScanSource]:
    """Split one SeriesInstanceUID into a source for each study, series number, frame of reference and geometry.

    Images that each have a different orientation (radial reformats) stay together. So do images that each have a different study or
    frame of reference, which careless programs write.

    Args:
        members: the files, in order.
        root: the folder that was searched.
    """
    identity = _identity(members)
    groups: list[list[Member]] = []
    for member in members:
        for group in groups:
            if identity(group[0]) == identity(member) and group[0].same_grid(member):
                group.append(member)
                break
        else:
            groups.append([member])
    groups = _with_fans(groups, identity)
    return [_source(group, members, part, len(groups), root) for part, group in enumerate(groups)]


def _identity(members: Sequence[Member]) -> Callable[[Member], tuple[object, ...]]:
    """A function that returns the values that the files of one source share; see :func:`_telling`."""
    tells = _telling(members)
    return lambda member: tuple(value for value, tell in zip(_stated(member), tells) if tell)


def _stated(member: Member) -> tuple[object, ...]:
    return member.study, member.number, member.frame_of_reference


def _telling(members: Sequence[Member]) -> list[bool]:
    """Whether study, series number and frame of reference each distinguish groups of files.

    An attribute with a different value in nearly every file distinguishes nothing.
    """
    several = [set(values) for values in zip(*map(_stated, members))]
    tells = [2 * len(values) <= len(members) for values in several]
    tells[2] = tells[2] and "" not in several[2]
    return tells


def divided(members: Sequence[Member]) -> str:
    """A one-line note if one SeriesInstanceUID stands for several studies or series numbers, else empty. It names no files."""
    studies, numbers, _ = (set(values) for values in zip(*map(_stated, members)))
    if len(studies) == 1 and len(numbers) == 1:
        return ""
    several = (len(values) > 1 for values in (studies, numbers, {member.frame_of_reference for member in members}))
    parted = any(tell and more for tell, more in zip(_telling(members), several))
    taken = (
        "each is taken by itself"
        if parted
        else "nearly every file has one of its own, and they are taken for one series"
    )
    return f"one SeriesInstanceUID stands for {len(studies)} studies and {len(numbers)} series numbers; {taken}"


def _with_fans(groups: list[list[Member]], identity: Callable[[Member], tuple[object, ...]]) -> list[list[Member]]:
    """Merge groups of a single image that have the same size once they are oriented for the network."""
    fans: dict[object, list[Member]] = {}
    merged = []
    for group in groups:
        seen = _seen_as(group[0]) if len(group) == 1 else None
        if seen is None:
            merged.append(group)
            continue
        key = (identity(group[0]), seen)
        if key not in fans:
            fans[key] = []
            merged.append(fans[key])
        fans[key] += group
    return merged


def _seen_as(member: Member) -> tuple[object, ...] | None:
    """Columns, rows and pixel spacing of an image oriented for the network; None without a single valid geometry."""
    if member.grid.shape != (8,) or member.frames > 1:
        return None
    across, down = member.grid[:3], member.grid[3:6]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ np.stack([across, down, np.cross(across, down)], axis=1)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 0.5:
        return None
    rows, columns = member.shape
    order = slices_last(affine, (columns, rows, 1), axis=2)
    spacing = tuple(np.round(member.grid[6:], 3))
    turned = order.forward[0, 0] == 1
    return (rows, columns, *spacing[::-1]) if turned else (columns, rows, *spacing)


def _folder(members: Sequence[Member]) -> Path:
    return Path(os.path.commonpath([member.path.parent for member in members]))


def _source(group: Sequence[Member], members: Sequence[Member], part: int, parts: int, root: Path) -> ScanSource:
    folder, number = _folder(members), group[0].number
    name = folder.resolve().name + (f"_series{number:03d}" if number is not None else "")
    name = f"{name}_part{part + 1}" if parts > 1 else name
    files = tuple(sorted(member.path for member in group))
    relative = folder.relative_to(root).as_posix()
    return ScanSource("dicom", folder, files, name, ".nii.gz", relative, group[0].uid, part, number)


def unique_names(sources: Sequence[ScanSource]) -> list[ScanSource]:
    """Add the tag to names that would be equal in one output folder (series with the same or no number)."""
    count = Counter((source.relative, source.name) for source in sources)
    return [
        replace(source, name=f"{source.name}_{source.tag}") if count[source.relative, source.name] > 1 else source
        for source in sources
    ]
