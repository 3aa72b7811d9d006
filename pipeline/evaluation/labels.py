"""Tissues from label volumes: the meaning of the numbers, and which labels belong to which reference scan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ct_cncl.pipeline.evaluation.matching import OpenedScan, left_over, locate, match
from ct_cncl.pipeline.evaluation.measures import tissue_key
from ct_cncl.pipeline.metrics.tissue import PHANTOM_CLASSES, TISSUE_BORDER
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.phantom import TISSUES
from ct_cncl.transforms.series.values import RESULT


@dataclass(frozen=True, eq=False)
class Labels:
    """Label volumes of a reference.

    Attributes:
        scans: label volumes in the order of the reference's scans.
        classes: label numbers of each tissue by name.
        source: the user's name of the file or folder.
        warnings: warnings for readers.
    """

    scans: Sequence[OpenedScan]
    classes: Mapping[str, tuple[int, ...]]
    source: str
    warnings: Sequence[str] = ()

    def described(self) -> str:
        """Describe where tissues come from, in a sentence without its full stop."""
        numbers = ", ".join(f"{name} {stated(own)}" for name, own in self.classes.items())
        return f"labels of {self.source}: {numbers}; {TISSUE_BORDER} pixels of each border taken off"


def stated(numbers: Sequence[int]) -> str:
    """Numbers of a class as text.

    >>> stated((4, 7, 8))
    '4 + 7 + 8'
    """
    return " + ".join(str(number) for number in numbers)


def read_classes(path: Path | None) -> dict[str, tuple[int, ...]]:
    """Read the label numbers of tissues from a JSON file such as ``{"liver": 5, "vessels": [7, 8]}``.

    Args:
        path: the file; None for the labels of anatomical phantoms, as ``ct-cncl prepare --phantoms`` writes them.

    Raises:
        DataError: there is no such file, or it holds anything but names and integers.
    """
    if path is None:
        return dict(PHANTOM_CLASSES)
    try:
        content = read_json(path)
    except OSError as error:
        raise DataError(f"Expected names of labels in {path}, but it cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"Expected {path.name} to be JSON, but got: {error}. {_EXAMPLE}") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"Expected {path.name} to hold names and numbers, but it does not. {_EXAMPLE}")
    classes = {name.strip(): _numbers(own, name, path) for name, own in content.items()}
    keys = [tissue_key(name) for name in classes]
    if "" in keys or len(set(keys)) < len(content):
        raise DataError(f"Expected a unique name for each tissue in {path.name}, but two are alike or one is empty.")
    return classes


_EXAMPLE = 'Write it like {"liver": 5, "vessels": [7, 8]}.'


def _numbers(value: Any, name: str, path: Path) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise DataError(
            f"Expected whole numbers of 0 or more for {name!r} in {path.name}, but got {json.dumps(value)}. {_EXAMPLE}"
        )
    return tuple(dict.fromkeys(numbers))


def find_labels(
    path: Path, reference: Sequence[OpenedScan], finder: PatientFinder, scratch: Path, *, names: Path | None
) -> Labels:
    """Find label volumes under a path, and match them to the reference by patient and geometry, like results.

    Args:
        path: a file or folder of NIfTI, DICOM or another kind that scans may have.
        reference: scans of the reference.
        finder: finds the patient of a volume.
        scratch: an existing folder, which must exist as long as the labels are used.
        names: JSON file with names and numbers, see :func:`read_classes`.

    Raises:
        DataError: volumes do not belong to the reference or do not hold labels, or none of their labels has a name.
        ScanError: a volume is unreadable, or there is none.
    """
    classes = read_classes(names)
    found = locate(path, finder, scratch, check_hu=False)[RESULT]
    scans = match(reference, found, name="the labels")
    held: set[int] = set()
    for scan in scans:
        held |= _labels_in(scan)
    named = {number for own in classes.values() for number in own}
    unnamed = sorted(held - named - {0})
    if names is None:
        _refuse_foreign(held, path)
        unnamed = []  # skin, cartilage, nerve and the table are left out on purpose
    elif (held - {0} or held).isdisjoint(named):
        raise DataError(
            f"Expected labels that {names.name} names in {path.name}, but it holds only {_few(sorted(held))}. "
            "Use the label numbers of these volumes."
        )
    warnings = []
    if unnamed:
        warnings.append(f"Labels without a name count for no tissue: {_few(unnamed)}.")
    if unused := left_over(scans, found):
        warnings.append(f"{len(unused)} label volumes belong to no scan of the reference ({', '.join(unused[:3])}).")
    return Labels(scans, classes, path.name or str(path), warnings)


def whole_labels(values: np.ndarray) -> np.ndarray:
    """Convert a slice of labels (x, y) to int64.

    Raises:
        ValueError: values are not integers of 0 or more.

    >>> whole_labels(np.array([[0.0, 3.0]])).tolist()
    [[0, 3]]
    """
    whole = np.rint(values)
    odd = (whole != values) | (whole < 0)
    if odd.any():
        raise ValueError(f"Expected whole numbers of 0 or more as labels, but got {float(values[odd].flat[0]):g}.")
    return whole.astype(np.int64)


def _labels_in(scan: OpenedScan) -> set[int]:
    held: set[int] = set()
    for number in range(scan.slices.count):
        try:
            values = scan.slices.read(number).hu
        except ValueError:
            continue  # that slice is reported separately
        try:
            held |= set(np.unique(whole_labels(values)).tolist())
        except ValueError as error:
            raise DataError(
                f"{str(error)[:-1]} in {scan.name}. Name label volumes, saved without interpolation."
            ) from error
    return held


def _refuse_foreign(held: set[int], path: Path) -> None:
    foreign = sorted(held - set(TISSUES.values()))
    if foreign:
        raise DataError(
            f"Expected labels of anatomical phantoms, 0 to {max(TISSUES.values())}, in {path.name}, but got {_few(foreign)}. "
            f"Say what the numbers mean with --label-names FILE. {_EXAMPLE}"
        )


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
