"""Means over slices, then over patients, with intervals, and paired comparisons. Missing values are left out of all means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ct_cncl.pipeline.evaluation.measures import NOISE_KEYS
from ct_cncl.pipeline.evaluation.record import ComparisonRow, Measure, PatientRow, SliceRow, SummaryRow
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES, bootstrap_mean

Over = Literal["patients", "slices"]


def patient_rows(
    rows: Sequence[SliceRow],
    measures: Sequence[Measure],
    of_patients: Mapping[tuple[str, str], tuple[Mapping[str, float], Mapping[str, str]]],
) -> list[PatientRow]:
    """Means over each patient's slices, and figures that only patients have.

    Args:
        rows: rows of all methods and slices.
        measures: all measures.
        of_patients: values and reasons of the figures that are not means over slices, by method and patient.
    """
    groups: dict[tuple[str, str], list[SliceRow]] = {}
    for row in rows:
        groups.setdefault((row.method, row.patient), []).append(row)
    found = []
    for (method, patient), members in groups.items():
        values, missing, counts = {}, {}, {}
        for measure in measures:
            own = [row.values[measure.key] for row in members if measure.key in row.values]
            counts[measure.key] = len(own)
            if own:
                values[measure.key] = float(np.mean(own))
            else:
                missing[measure.key] = _most_common([row.missing.get(measure.key, "") for row in members])
        more, why = of_patients.get((method, patient), ({}, {}))
        values |= more
        counts |= dict.fromkeys(more, len(members))
        missing = {key: text for key, text in missing.items() if key not in more} | dict(why)
        found.append(PatientRow(method, patient, len(members), values, counts, missing))
    return found


def summarise(
    slices: Sequence[SliceRow], patients: Sequence[PatientRow], measures: Sequence[Measure], *, seed: int
) -> list[SummaryRow]:
    """Mean and 95 % interval of every figure of every method, over patients, or over slices if there are few patients.

    Slices of one patient are not independent: an interval over slices tells how certain the mean over these patients is, not
    what to expect of other patients.

    Args:
        slices: rows of all slices and methods.
        patients: rows of all patients and methods.
        measures: all measures.
        seed: seed of the bootstrap.
    """
    found = []
    for method in dict.fromkeys(row.method for row in patients):
        for measure in measures:
            values, over = _values(method, measure.key, slices, patients)
            rows = [row for row in slices if row.method == method]
            lacking = [row.missing.get(measure.key, "") for row in rows if measure.key not in row.values]
            if not values:
                reasons = [row.missing.get(measure.key, "") for row in patients if row.method == method]
                found.append(SummaryRow(method, measure.key, None, None, None, 0, over, _most_common(reasons)))
                continue
            interval = bootstrap_mean(np.array(list(values.values())), seed=seed)
            note = ""
            if lacking and measure.key not in NOISE_KEYS:
                note = f"missing on {len(lacking)} of {len(rows)} slices: {_most_common(lacking)}"
            found.append(SummaryRow(method, measure.key, *interval, over, note))
    return found


def compare(
    slices: Sequence[SliceRow],
    patients: Sequence[PatientRow],
    measures: Sequence[Measure],
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int,
) -> list[ComparisonRow]:
    """Paired differences between methods for the same patients (or slices), so that differences between these cancel out.

    Args:
        slices: rows of all slices and methods.
        patients: rows of all patients and methods.
        measures: all measures.
        pairs: pairs of method keys, first minus second.
        seed: seed of the bootstrap.
    """
    found = []
    for first, second in pairs:
        for measure in measures:
            ours, over = _values(first, measure.key, slices, patients)
            theirs, _ = _values(second, measure.key, slices, patients)
            both = [key for key in ours if key in theirs]
            if not both:
                note = "nothing that both have"
                found.append(ComparisonRow(first, second, measure.key, None, None, None, 0, over, None, note))
                continue
            a, b = (np.array([side[key] for key in both]) for side in (ours, theirs))
            interval = bootstrap_mean(a - b, seed=seed)
            share = _share_better(a, b, measure)
            found.append(ComparisonRow(first, second, measure.key, *interval, over, share))
    return found


def _values(
    method: str, key: str, slices: Sequence[SliceRow], patients: Sequence[PatientRow]
) -> tuple[dict[tuple[str, ...], float], Over]:
    """The values that are averaged and resampled, by patient or slice, and which of these two they are."""
    of_patients: dict[tuple[str, ...], float] = {
        (row.patient,): row.values[key] for row in patients if row.method == method and key in row.values
    }
    few = len({row.patient for row in patients}) < LEAST_VALUES
    if few and key not in NOISE_KEYS:
        of_slices: dict[tuple[str, ...], float] = {
            (row.patient, row.scan, str(row.slice)): row.values[key]
            for row in slices
            if row.method == method and key in row.values
        }
        return of_slices, "slices"
    return of_patients, "patients"


def _share_better(first: np.ndarray, second: np.ndarray, measure: Measure) -> float | None:
    if measure.better == "":
        return None
    if measure.better == "zero":
        first, second = -np.abs(first), -np.abs(second)
    elif measure.better == "lower":
        first, second = -first, -second
    return float(np.mean(first > second))


def _most_common(reasons: Sequence[str]) -> str:
    counted = Counter(reason for reason in reasons if reason)
    return counted.most_common(1)[0][0] if counted else "no slice has it"
