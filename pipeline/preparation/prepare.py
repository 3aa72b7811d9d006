"""``ct-cncl prepare`` as a function: it writes a data set according to its options."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ct_cncl.pipeline.preparation.spectra_picture import write_mean_spectra
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.common.terminal import say
from ct_cncl.transforms.dataset.datalist import DATALIST, SPLITS
from ct_cncl.transforms.dataset.paired_cases import paired_cases, scans_in_one_place, scans_in_two_places
from ct_cncl.transforms.dataset.patients import DEFAULT_NAME_RULE, PatientFinder
from ct_cncl.transforms.dataset.simulated_cases import Case, phantom_cases, simulated_cases
from ct_cncl.transforms.dataset.writer import split_cases, write_dataset

logger = logging.getLogger(__name__)

SPECTRA_FILE = "spectra.svg"
"""Picture next to the datalist, written if noise was measured and inserted."""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of ``ct-cncl prepare``; see its ``--help``."""

    out: Path
    sources: Sequence[Path] = ()
    low: Sequence[Path] = ()
    pairs: bool = False
    across_frames: bool = False
    validation: Sequence[Path] = ()
    test: Sequence[Path] = ()
    dose_fraction: float = 0.25
    validation_fraction: float = 0.2
    test_fraction: float = 0.0
    patients: Path | None = None
    patient_from_name: str = DEFAULT_NAME_RULE
    phantoms: int = 0
    slices: int = 4
    size: int = 512
    incident_photons: float | None = None
    realizations: int = 0
    photon_counts: int = 0
    seed: int = 0
    salt: str | None = None
    overwrite: bool = False


def prepare_data(options: PrepareOptions) -> dict[str, Any]:
    """Prepare a data set and print how many volumes and slices each split has.

    Returns:
        The datalist.

    Raises:
        DataError: options exclude each other or are out of range, or scans cannot be paired, split or stored.
        ScanError: a scan cannot be read.
        OutputError: the data set cannot be written.
    """
    if not 0 < options.dose_fraction <= 1:
        raise DataError(
            f"Expected a dose fraction above 0 and up to 1, but got {options.dose_fraction}; 0.25 is quarter dose."
        )
    scans = (*options.sources, *options.low, *options.validation, *options.test)
    if bool(options.phantoms) == bool(scans if options.phantoms else options.sources):
        raise DataError(
            "Expected either scans to prepare or --phantoms N, but got " + ("both." if options.phantoms else "neither.")
        )
    real = bool(options.low) or options.pairs
    if options.realizations < 0 or (options.realizations and real):
        raise DataError(
            "Expected 0 or more noise realizations, and none for real pairs (--low, --pairs), but got "
            f"{options.realizations}. Omit --realizations."
        )
    if not 0 <= options.photon_counts <= options.realizations or (options.photon_counts and options.dose_fraction == 1):
        raise DataError(
            f"Expected no more --photon-counts than --realizations, and a --dose below 1 for them, but got {options.photon_counts} of "
            f"{options.realizations} at {options.dose_fraction}."
        )
    if (options.low and options.pairs) or (options.pairs and options.phantoms) or (options.across_frames and not real):
        raise DataError(
            "Expected real pairs from two trees (SRC --low LOW) or side by side in one (SRC --pairs), and --across-frames "
            "only with one of these, but got another combination. Leave one option out."
        )
    splits = _cases(options)
    total = sum(len(cases) for cases in splits.values())
    say(f"preparing {counted(total, 'volume')}")
    with tqdm(total=total, desc="preparing", unit="volume", disable=not sys.stderr.isatty()) as bar:
        datalist = write_dataset(
            options.out,
            splits,
            salt=options.salt,
            overwrite=options.overwrite,
            notes={
                "seed": options.seed,
                "patient_rule": options.patient_from_name,
                "patient_table": options.patients is not None,
            },
            progress=lambda done, _total: bar.update(done - bar.n),
        )
    entries = [entry for split in SPLITS for entry in datalist[split]]
    write_mean_spectra(
        [entry.get("provenance", {}).get("spectra", {}) for entry in entries], options.out / SPECTRA_FILE
    )
    for split in SPLITS:
        chosen = datalist[split]
        people = len({entry["patient"] for entry in chosen})
        slices = sum(entry["shape"][2] for entry in chosen)
        say(f"{split:<10} {len(chosen):4d} volumes, {people:4d} patients, {slices:5d} slices")
    doubtful = [entry["source"] for entry in entries if entry.get("provenance", {}).get("warning")]
    if doubtful:
        say(
            f"warning: {len(doubtful)} of {len(entries)} volumes show a body that the field of view cuts off, {doubtful[0]} among them: noise is "
            f"too weak along that edge. provenance.warning in {options.out / DATALIST} says how much of the edge.",
            error=True,
        )
    say(f"Data set: {options.out}")
    return datalist


def _cases(options: PrepareOptions) -> dict[str, list[Case]]:
    if options.phantoms:
        cases = phantom_cases(
            options.phantoms,
            first_seed=options.seed,
            slices=options.slices,
            dose_fraction=options.dose_fraction,
            size=options.size,
            realizations=options.realizations,
            photon_counts=options.photon_counts,
        )
        return _split(options, cases, (), ())
    finder = PatientFinder(options.patients, options.patient_from_name)
    groups = (options.sources, options.validation, options.test)
    if options.low or options.pairs:
        trees = scans_in_one_place(groups) if options.pairs else scans_in_two_places(options.low, groups)
        if trees.others:
            say(
                f"passed over {counted(len(trees.others), 'scan')} without a stated dose: {', '.join(trees.others[:5])}"
            )
        dose = options.dose_fraction
        found = paired_cases(trees, patients=finder, dose_fraction=dose, across_frames=options.across_frames)
    else:
        found = [_simulated(options, finder, group) for group in groups]
    return _split(options, *found)


def _split(
    options: PrepareOptions, cases: Sequence[Case], validation: Sequence[Case], test: Sequence[Case]
) -> dict[str, list[Case]]:
    return split_cases(
        cases,
        validation=validation,
        test=test,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )


def _simulated(options: PrepareOptions, finder: PatientFinder, group: Sequence[Path]) -> list[Case]:
    return [
        case
        for path in group
        for case in simulated_cases(
            path,
            patients=finder,
            dose_fraction=options.dose_fraction,
            seed=options.seed,
            incident_photons=options.incident_photons,
            realizations=options.realizations,
            photon_counts=options.photon_counts,
        )
    ]
