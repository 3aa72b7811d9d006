"""Several images at one place: which of them belong together over all places, as a phase of perfusion or of the heart does."""

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
"""Functional group and attribute that may name a phase; the first that names all of them is taken."""
PHASE_TAGS = [name for _, name in _STATED]
"""Attributes to be read."""


class Phases:
    """The place of every slice along the normal, and its phase.

    Args:
        frames: slices along the normal; those at one place by number.
        headers: by file.

    Attributes:
        place: (slices,) number of the place, from 0.
        phase: (slices,) number of the phase, from 0; 0 where a place holds one slice and nothing names its phase.
    """

    def __init__(self, frames: Sequence[Frame], headers: dict[Path, Dataset]) -> None:
        normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
        along = np.array([float(frame.position @ normal) for frame in frames])
        self.place = np.concatenate([[0], np.cumsum(np.diff(along) >= _SAME_PLACE)]).astype(int)
        self._at = [np.flatnonzero(self.place == place) for place in range(int(self.place[-1]) + 1)]
        self.phase = self._phases(frames, headers)

    def neighbour(self, number: int, steps: int) -> int:
        """The slice this many places further, of the same phase or else of the nearest; the ends repeat."""
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
    """A value that can be sorted; the same for all that state none."""
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
    except Exception:  # pydicom raises nearly every built-in exception on damaged values; another attribute may tell
        return None
