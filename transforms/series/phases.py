"""Phases: groups several images at the same position into phases that belong together, such as perfusion or cardiac phases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.scan import Frame

_SAME_PLACE = 0.01  # mm
_STATED = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("", "TemporalPositionIdentifier"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("", "TriggerTime"),
    ("CTXRayDetailsSequence", "KVP"),
    ("", "MonoenergeticEnergyEquivalent"),
    ("CTReconstructionSequence", "ConvolutionKernel"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("", "AcquisitionNumber"),
    ("", "AcquisitionTime"),
    ("", "ContentTime"),
)
"""Functional group and attribute that may identify a phase; the first that distinguishes all phases is used."""
PHASE_TAGS = [name for _, name in _STATED]
"""Attributes that must be read to identify phases."""


class Phases:
    """Position number and phase of every slice.

    Args:
        frames: slices in order along the normal; those at the same position in the order of their numbers.
        headers: the headers by file.

    Attributes:
        place: (slices,), number of the slice's position, from 0.
        phase: (slices,), number of the slice's phase, from 0. If no attribute identifies the phases, the slices at each position are
            simply counted.
    """

    def __init__(self, frames: Sequence[Frame], headers: dict[Path, Dataset]) -> None:
        normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
        along = np.array([float(frame.position @ normal) for frame in frames])
        self.place = np.concatenate([[0], np.cumsum(np.diff(along) >= _SAME_PLACE)]).astype(int)
        self._at = [np.flatnonzero(self.place == place) for place in range(int(self.place[-1]) + 1)]
        self.phase = self._phases(frames, headers)

    def neighbour(self, number: int, steps: int) -> int:
        """The slice ``steps`` positions further, in the same or else the nearest phase; the first and last positions repeat."""
        there = self._at[min(max(int(self.place[number]) + steps, 0), len(self._at) - 1)]
        return int(there[np.abs(self.phase[there] - self.phase[number]).argmin()])

    def _phases(self, frames: Sequence[Frame], headers: dict[Path, Dataset]) -> np.ndarray:
        most = max(len(there) for there in self._at)
        if most == 1:
            return np.zeros(len(frames), dtype=int)
        for group, name in _STATED:
            stated = [_stated(frame, headers[frame.path], group, name) for frame in frames]
            names = sorted(set(stated))
            apart = all(len({stated[k] for k in there}) == len(there) for there in self._at)
            if apart and len(names) == most:
                return np.array([names.index(value) for value in stated])
        return np.concatenate([np.arange(len(there)) for there in self._at])


def _stated(frame: Frame, header: Dataset, group: str, name: str) -> tuple[float, str]:
    """A sortable value, which is the same for all slices that do not state the attribute."""
    places = [header]
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if frame.index is not None and groups:
        places = [groups[frame.index], *(groups[frame.index].get(group) or []), header]
    for place in places:
        value: Any = _get(place, name)
        if value not in (None, ""):
            try:
                return float(value), ""
            except (TypeError, ValueError):
                return 0.0, str(value)
    return -np.inf, ""


def _get(place: Dataset, name: str) -> Any:
    try:
        return place.get(name)
    except Exception:  # pydicom raises nearly every built-in exception on damaged values; try the next attribute
        return None
