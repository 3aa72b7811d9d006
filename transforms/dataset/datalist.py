"""A prepared data set: reads its ``datalist.json``, and checks that its files have not changed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.dataset.patients import rule_that_tells_apart

DATALIST = "datalist.json"
SPLITS = ("training", "validation", "test")
FORMAT = 2
"""Version of the data set format; raised when old data sets can no longer be read, or the same scans give other volumes."""
VOLUMES = ("image", "label")
NOISE = "noise"
"""Key of an entry's noise realizations, a list of volumes; not every entry has it."""
TISSUE_LABELS = "tissues"
"""Key of a phantom's tissue labels, for ``ct-cncl evaluate --labels``; only phantoms of validation and test have them."""


def read_datalist(folder: str | Path) -> dict[str, Any]:
    """Read ``folder/datalist.json`` and make the volume paths absolute.

    Args:
        folder: a data set written by ``ct-cncl prepare``.

    Returns:
        The datalist. "training", "validation" and "test" are lists of entries with absolute paths under "image" (low
        dose) and "label" (normal dose). Some entries also have a path under "tissues" (tissue labels of a phantom) and a list of
        paths under "noise" (noise realizations).

    Raises:
        DataError: the folder or its datalist is missing, the datalist is unreadable or of another format, or a patient is in two
            splits.
    """
    folder = absolute(folder)
    path = folder / DATALIST
    if not path.is_file():
        raise DataError(
            f"Expected a prepared data set in {folder}, but it has no {DATALIST}. Write one with "
            "`ct-cncl prepare SRC --out DATA` and name its folder."
        )
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected {path} to be JSON, but it cannot be read: {error}. Prepare the data set again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"Expected {path} to hold a JSON object, but got {type(content).__name__}. Prepare the data set again."
        )
    if content.get("format") != FORMAT:
        raise DataError(
            f"Expected {path} of format {FORMAT}, but got {content.get('format')}. Prepare the data set again."
        )
    for split in SPLITS:
        for entry in content.setdefault(split, []):
            missing = [key for key in (*VOLUMES, "patient", "source") if key not in entry]
            if missing:
                raise DataError(
                    f"Expected every entry of {path} to have {', '.join(missing)}, but one in {split} does not. Prepare the "
                    "data set again."
                )
            for key in VOLUMES:
                entry[key] = str(folder / entry[key])
            if TISSUE_LABELS in entry:
                entry[TISSUE_LABELS] = str(folder / entry[TISSUE_LABELS])
            if NOISE in entry:
                entry[NOISE] = [str(folder / path) for path in entry[NOISE]]
    check_patients(content)
    return content


def check_patients(content: dict[str, Any]) -> None:
    """Refuse a datalist that has a patient in two splits.

    Raises:
        DataError: a patient is in two splits; the message names the splits and source files.
    """
    seen: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        for entry in content.get(split, []):
            first_split, first_source = seen.setdefault(entry["patient"], (split, entry["source"]))
            if first_split != split:
                raise DataError(
                    f"Expected every patient in one split, but {first_source} ({first_split}) and {entry['source']} "
                    f"({split}) belong to the same patient. Move one, or name the patients with"
                    f" --patients table.csv or --patient-from-name RULE.{rule_that_tells_apart([first_source, entry['source']])}"
                )


def verify_checksums(content: dict[str, Any], splits: tuple[str, ...] = SPLITS) -> None:
    """Compare every volume of ``splits`` with its checksum in the datalist.

    Args:
        content: from ``read_datalist``.
        splits: the splits to check.

    Raises:
        DataError: a file is missing or has changed since it was prepared.
    """
    files = [item for split in splits for entry in content[split] for item in _checksums(entry)]
    for path, _ in files:
        if not Path(path).is_file():
            raise DataError(f"Expected {path}, which {DATALIST} names, but it is missing. Prepare the data set again.")
    with ThreadPoolExecutor() as pool:  # threads suffice: hashing releases the interpreter lock
        for (path, expected), found in zip(files, pool.map(lambda item: file_checksum(Path(item[0])), files)):
            if found != expected:
                raise DataError(
                    f"Expected {path} to have the SHA-256 {expected[:12]}..., but got {found[:12]}...: it has changed "
                    "since it was prepared. Restore it, or prepare the data set again."
                )


def short_repeated(entries: Sequence[dict[str, Any]], slices: int) -> list[dict[str, Any]]:
    """Repeat entries with few slices, so that patches do not come only from the long scans.

    Args:
        entries: the entries of a split, with "shape" (x, y, z).
        slices: an entry with fewer slices is repeated as often as fits into this number.

    Raises:
        ValueError: ``slices`` below 1.

    >>> [entry["source"] for entry in short_repeated([{"source": "a", "shape": [9, 9, 1]}, {"source": "b", "shape": [9, 9, 5]}], 3)]
    ['a', 'a', 'a', 'b']
    """
    if slices < 1:
        raise ValueError(f"Expected slices of at least 1, but got {slices}.")
    return [entry for entry in entries for _ in range(max(1, slices // entry["shape"][2]))]


def _checksums(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs (path, checksum) for every volume of an entry."""
    stated = entry.get("checksum", {})
    files = [(entry[key], stated.get(key, "none")) for key in (*VOLUMES, TISSUE_LABELS) if key in entry]
    noise = entry.get(NOISE, [])
    return files + list(zip_longest(noise, stated.get(NOISE, [])[: len(noise)], fillvalue="none"))


def entries(content: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """The entries of one split.

    Raises:
        DataError: the split is unknown or empty.
    """
    if split not in SPLITS:
        raise DataError(f"Expected one of the splits {', '.join(SPLITS)}, but got {split!r}.")
    if not content[split]:
        raise DataError(
            f"Expected at least one volume in the {split} split, but there is none. Prepare the data set with "
            f"--{split}-fraction or --{split} SRC."
            if split != "training"
            else "Expected at least one volume in the training split, but there is none. Prepare the data set again."
        )
    return content[split]
