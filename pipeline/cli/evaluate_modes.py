"""The three modes of ``ct-cncl evaluate``: a run, files of any method, or inserts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ct_cncl.pipeline.evaluation.record import Evaluation


def is_run(path: Path) -> bool:
    """Whether a path is a folder that ``ct-cncl train`` wrote, or a checkpoint in one."""
    return (path / "config.json").is_file() or (path.is_file() and path.suffix == ".pt")


def evaluate_a_run(
    run: Path,
    assignments: Sequence[str],
    *,
    data: Path | None,
    split: str | None,
    out: Path | None,
    overwrite: bool,
    not_for_runs: Sequence[str],
) -> None:
    """Evaluate a run on its data set.

    Raises:
        ValueError: an option is for files only, or :func:`~ct_cncl.pipeline.training.run.evaluate_run` refuses the input.
    """
    from ct_cncl.pipeline.training.run import evaluate_run

    if not_for_runs:
        raise ValueError(
            f"{', '.join(not_for_runs)} cannot be combined with a run. Denoise its data first, then evaluate the files."
        )
    evaluate_run(run, data=data, split=split or "validation", out=out, overwrite=overwrite, assignments=assignments)


def evaluate_some_files(
    reference: Path,
    candidates: Sequence[str],
    *,
    out: Path | None,
    low_dose: Path | None,
    labels: Path | None,
    label_names: Path | None,
    windows: str,
    region: str,
    names: Sequence[str],
    patients: Path | None,
    patient_from_name: str | None,
    slices: int,
    seed: int,
    overwrite: bool,
    not_for_files: Sequence[str],
) -> None:
    """Evaluate any method's files against a reference and print the table.

    Raises:
        ValueError: an option is for runs only, or :func:`~ct_cncl.pipeline.evaluation.run.evaluate_files` refuses the input.
    """
    from ct_cncl.pipeline.evaluation.run import EvaluateOptions, describe, evaluate_files
    from ct_cncl.transforms.common.terminal import say
    from ct_cncl.transforms.dataset.patients import DEFAULT_NAME_RULE

    if out is None:
        raise ValueError("Expected a folder for the report, but got none. Pass --out FOLDER.")
    if not_for_files:
        raise ValueError(f"{', '.join(not_for_files)} needs a run, but {reference} is not one. Omit it.")

    evaluation = evaluate_files(
        EvaluateOptions(
            reference=reference,
            candidates=tuple(Path(each) for each in candidates),
            out=out,
            input=low_dose,
            labels=labels,
            label_names=label_names,
            windows=tuple(text for text in windows.split(",") if text),
            region=region,
            names=tuple(names),
            patients=patients,
            patient_from_name=patient_from_name or DEFAULT_NAME_RULE,
            shown=slices,
            seed=seed,
            overwrite=overwrite,
        ),
        page=_page,
    )
    say(*describe(evaluation, out).splitlines())


def evaluate_with_inserts(
    scans: Path,
    results: Sequence[str],
    inserts: Path,
    *,
    out: Path | None,
    patients: Path | None,
    patient_from_name: str | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Write scans with inserts, or compare a method's two results.

    Raises:
        ValueError: the number of results is neither 0 nor 2, or two results came without ``out``.
    """
    from ct_cncl.pipeline.evaluation.inserts import INSERTS_TABLE, evaluate_inserts, write_with_inserts
    from ct_cncl.pipeline.evaluation.record import PAGE
    from ct_cncl.transforms.common.terminal import say
    from ct_cncl.transforms.dataset.patients import DEFAULT_NAME_RULE, PatientFinder

    if not results:
        count = write_with_inserts(scans, inserts, seed=seed)
        say(f"{count} inserts written to {inserts}; denoise {scans} and {inserts}, then name both results")
        return
    if len(results) != 2 or out is None:
        raise ValueError(
            f"Expected a method's results for REF and for {inserts}, and --out FOLDER, but got {len(results)} results"
            f"{'' if out else ' and no --out'}. Name two."
        )
    finder = PatientFinder(patients, patient_from_name or DEFAULT_NAME_RULE)
    plain, inserted = map(Path, results)
    found = evaluate_inserts(scans, plain, inserted, inserts, out, patients=finder, overwrite=overwrite, page=_page)
    say(*found.summary, f"written to {out}: {PAGE}, {INSERTS_TABLE}")


def _page(found: Evaluation, path: Path) -> None:
    """Write the report, and show how long that has taken so far."""
    from tqdm import tqdm

    from ct_cncl.pipeline.report.evaluation_page import write_page

    with tqdm(total=1, desc="writing the report", bar_format="{desc} {elapsed}", disable=not sys.stderr.isatty()):
        write_page(found, path)
