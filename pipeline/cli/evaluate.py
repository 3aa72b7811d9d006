"""``ct-cncl evaluate``: evaluate any method's files against a reference, or a run on its data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    reference: Annotated[
        Path,
        typer.Argument(metavar="REF", help="The reference: a file or folder of DICOM or NIfTI. Or a RUN; see below."),
    ],
    candidates: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="CAND...",
            help="Results to evaluate, one file or folder for each method. After a RUN: KEY=VALUE for config keys.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", help="Folder for the report. Default for a RUN: RUN/evaluation_SPLIT.")
    ] = None,
    low_dose: Annotated[
        Optional[Path],
        typer.Option(
            "--input", help="The low-dose scans. They are evaluated too, and the report shows what was removed."
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],
        typer.Option(help="Label volumes of REF. Tissue classes then come from them, not from the reference's HU."),
    ] = None,
    label_names: Annotated[
        Optional[Path],
        typer.Option(help='JSON with the labels of each class: {"liver": 5, "vessels": [7, 8]}. [those of phantoms]'),
    ] = None,
    inserts: Annotated[
        Optional[Path],
        typer.Option(
            help="Measure how much of the contrast of small inserts is kept. Without candidates: write the scans with inserts to this new "
            "folder. With a method's results for REF and for that folder: compare the two.",
            metavar="FOLDER",
        ),
    ] = None,
    windows: Annotated[
        str,
        typer.Option(
            help="Windows for PSNR, SSIM and VIF, separated by commas: full, chest, abdomen, head, bone, or NAME=CENTRE/WIDTH in HU."
        ),
    ] = "full,chest,abdomen",
    region: Annotated[
        str, typer.Option(help="Pixels used for PSNR, SSIM, RMSE and MAE: scan (all but padding), body, or all.")
    ] = "scan",
    name: Annotated[
        Optional[list[str]], typer.Option("--name", help="Name of a candidate in the report; once for each, in order.")
    ] = None,
    patients: Annotated[
        Optional[Path],
        typer.Option("--patients", help="CSV with columns file and patient, for files that do not state the patient."),
    ] = None,
    patient_from_name: Annotated[
        Optional[str],
        typer.Option(
            "--patient-from-name", help="Regular expression that finds the patient in a file name. [up to the first _]"
        ),
    ] = None,
    slices: Annotated[int, typer.Option(help="Number of slices shown in the report, evenly spaced.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    data: Annotated[
        Optional[Path],
        typer.Option("--data", help="For a RUN: data set written by `ct-cncl prepare`. Default: the run's own."),
    ] = None,
    split: Annotated[Optional[str], typer.Option(help="For a RUN: training, validation or test. [validation]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
) -> None:
    """Evaluate denoised scans of any method against a reference: tables with confidence intervals, and report.html.

    Scans are matched by patient and geometry; files that do not match are refused by name. Maps that `ct-cncl denoise
    --save noise,disagreement` wrote next to a result are used. Every figure states its data range or window.

    With a RUN of `ct-cncl train` instead of REF: PSNR, SSIM and RMSE of the input, both branches and the result on its data set.
    A run's config is code: evaluate only runs that you trust.

    Examples:
      ct-cncl evaluate full_dose denoised_a denoised_b --input low_dose --out report

      ct-cncl evaluate reference result --labels organs --label-names organs.json --out report

      ct-cncl evaluate runs/narrow --data data/quarter --split test

      ct-cncl evaluate scans --inserts inserted

      ct-cncl evaluate scans denoised denoised_inserted --inserts inserted --out report
    """
    from ct_cncl.pipeline.cli.evaluate_modes import evaluate_a_run, evaluate_some_files, evaluate_with_inserts, is_run

    rest = candidates or []
    if inserts is not None:
        evaluate_with_inserts(
            reference, rest, inserts, out=out, patients=patients, patient_from_name=patient_from_name, seed=seed, overwrite=overwrite
        )  # fmt: skip
        return
    if is_run(reference) or (low_dose is None and all("=" in each for each in rest)):
        chosen = {
            "--input": low_dose, "--name": name, "--patients": patients, "--patient-from-name": patient_from_name,
            "--labels": labels, "--label-names": label_names,
        }  # fmt: skip
        evaluate_a_run(
            reference, rest, data=data, split=split, out=out, overwrite=overwrite,
            not_for_runs=[option for option, value in chosen.items() if value],
        )  # fmt: skip
        return
    evaluate_some_files(
        reference, rest, out=out, low_dose=low_dose, labels=labels, label_names=label_names, windows=windows,
        region=region, names=name or [], patients=patients, patient_from_name=patient_from_name, slices=slices, seed=seed, overwrite=overwrite,
        not_for_files=[option for option, value in {"--data": data, "--split": split}.items() if value],
    )  # fmt: skip
