"""Assigns files to patients, and patients to splits. A patient is never in two splits."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.names import same_letters
from ct_cncl.transforms.dataset.dose_names import without_scan

DEFAULT_NAME_RULE = r"^([^_.]+)"
"""Without a PatientID, the patient is the file name up to the first underscore or dot."""


class PatientFinder:
    """Finds the patient of a scan: from a table, else from the file's header (DICOM), else from its name.

    Args:
        table: CSV file with the columns ``file`` (name or path of a file or folder) and ``patient``.
        name_rule: regular expression to search for in the file name; its first group, or else the whole match, is the patient.

    Raises:
        DataError: the table cannot be read or lacks columns, or the rule is not a regular expression.
    """

    def __init__(self, table: Path | None = None, name_rule: str = DEFAULT_NAME_RULE) -> None:
        try:
            self.rule = re.compile(same_letters(name_rule))
        except re.error as error:
            raise DataError(
                f"Expected a regular expression for the patient's name, but got {name_rule!r}: {error}."
            ) from error
        self.table = {} if table is None else _read_table(table)
        self.uses_table = table is not None

    def __call__(self, source: Path, header_patient: str | None = None) -> str:
        """Return the patient of a scan.

        Args:
            source: file or folder of the scan.
            header_patient: PatientID in its header; dose and series number at its end are removed.

        Raises:
            DataError: the table has no row for the scan, or its name does not match the rule.
        """
        name = same_letters(source.name)
        for key in (same_letters(str(source)), name):
            if key in self.table:
                return self.table[key]
        if self.uses_table:
            raise DataError(
                f"Expected the patient table to have a row for {source.name}, but it has none. Add `{source.name},PATIENT`."
            )
        if header_patient:
            return without_scan(same_letters(header_patient))
        match = self.rule.search(name)
        if match is None or not match.group((match.lastindex and 1) or 0):
            raise DataError(
                f"Expected {source.name} to match the patient rule {self.rule.pattern!r}, but it does not. Give another rule "
                "(--patient-from-name) or a table (--patients)."
            )
        return match.group((match.lastindex and 1) or 0)


def _read_table(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(f"Expected a patient table in {path}, but it cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Expected {path} to be a CSV in UTF-8, but got: {error}. Save it as CSV UTF-8.") from error
    if not rows or not {"file", "patient"} <= set(rows[0]):
        raise DataError(
            f"Expected {path} to be a CSV with the columns file and patient, but got {list(rows[0]) if rows else 'no rows'}."
        )
    table: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        file, patient = (same_letters(row[column] or "").strip() for column in ("file", "patient"))
        if not file or not patient:
            raise DataError(
                f"Expected a file and a patient in every row of {path}, but line {line} lacks one. Fill it in."
            )
        if table.setdefault(file, patient) != patient:
            raise DataError(
                f"Expected one patient for {file} in {path}, but line {line} names a different one. Remove one row, or give paths."
            )
    return table


def rule_that_tells_apart(files: Iterable[str]) -> str:
    """The end of a message: a rule for file names that finds more than one patient in ``files``; empty if there is none.

    >>> rule_that_tells_apart(["nysbu_A1_1900.nii.gz", "nysbu_A1_1901.nii.gz", "nysbu_A2_1900.nii.gz"])
    " For example --patient-from-name '^([^_.]+_[^_.]+)' finds 2 patients in these names."
    """
    names = [same_letters(name) for name in files]
    for parts in range(1, 5):
        rule = f"^({'_'.join(['[^_.]+'] * parts)})"
        found = [match.group(1) if (match := re.search(rule, name)) else "" for name in names]
        if len(set(found)) > 1 and all(found):
            return f" For example --patient-from-name '{rule}' finds {len(set(found))} patients in these names."
    return ""


def hash_patient(patient: str, salt: str) -> str:
    """Salted SHA-256 of a patient, 16 hexadecimal digits: the same patient can be recognised, but not by name."""
    return hashlib.sha256(f"{salt}\0{patient}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def split_patients(
    patients: Iterable[str], *, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """Assign each patient to "training", "validation" or "test".

    With a fraction above 0, a split gets at least one patient.

    Args:
        patients: names of the patients; duplicates count once.
        validation_fraction: share of the patients, in [0, 1).
        test_fraction: share of the patients, in [0, 1).
        seed: seed of the shuffle.

    Returns:
        Split by patient.

    Raises:
        DataError: a fraction is out of range, or there are too few patients to leave one for training.
    """
    fractions = (validation_fraction, test_fraction)
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise DataError(
            f"Expected fractions of at least 0 with a sum below 1, but got {validation_fraction} (validation) and "
            f"{test_fraction} (test)."
        )
    names = sorted(set(patients))
    shuffled = [names[number] for number in np.random.default_rng(seed).permutation(len(names))]
    counts = [max(1, round(fraction * len(names))) if fraction > 0 else 0 for fraction in fractions]
    if len(names) - sum(counts) < 1:
        raise DataError(
            f"Expected more patients than the {sum(counts)} asked for validation and test, but got {len(names)}. Add scans, "
            "set the fractions to 0, or name validation scans with --validation SRC."
        )
    splits = ["validation"] * counts[0] + ["test"] * counts[1] + ["training"] * (len(names) - sum(counts))
    return dict(zip(shuffled, splits))
