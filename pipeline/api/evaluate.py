"""``evaluate`` as a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ct_cncl.pipeline.evaluation import Evaluation
from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.transforms.dataset.patients import DEFAULT_NAME_RULE


def evaluate(
    reference: str | Path,
    candidates: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    input: str | Path | None = None,  # noqa: A002  the command's own word
    windows: Sequence[str] = ("full", "chest", "abdomen"),
    region: str = "scan",
    names: Sequence[str] = (),
    labels: str | Path | None = None,
    label_names: str | Path | None = None,
    patients: str | Path | None = None,
    patient_from_name: str = DEFAULT_NAME_RULE,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluate denoised scans of any method against a reference: tables with confidence intervals, and report.html in ``out``.

    For arrays in memory, use ``ct_cncl.pipeline.metrics``, where each measure is a function of tensors.

    Args:
        reference: a file or folder of DICOM or NIfTI.
        candidates: results of any method: one file or folder, or several.
        out: folder for the report.
        input: the low-dose scans. They are evaluated too, and the report shows what was removed.
        windows: windows for PSNR, SSIM and VIF: "full", "chest", "abdomen", "head", "bone", or "NAME=CENTRE/WIDTH" in HU.
        region: pixels used for PSNR, SSIM, RMSE and MAE: "scan" (all but padding), "body" or "all".
        names: names of the candidates, in their order.
        labels: label volumes of the reference. Tissue classes then come from them, not from the reference's HU.
        label_names: JSON with the labels of each class.
        patients: CSV with the columns file and patient, for files that do not state the patient.
        patient_from_name: regular expression that finds the patient in a file name.
        seed: seed of the bootstrap.
        overwrite: replace an earlier evaluation.
        progress: show a progress bar on a terminal.

    Returns:
        The evaluation: ``summary`` in sentences, ``measures``, and rows by slice and by patient.

    Raises:
        TypeError: the scans are arrays, not paths.
        ValueError: options or scans cannot be used or do not belong together. The message is one line.
        OutputError: ``out`` holds an evaluation already, or cannot be written.
    """
    from ct_cncl.pipeline.report.evaluation_page import write_page

    several = [candidates] if isinstance(candidates, (str, Path)) else candidates
    for each in (reference, *several):
        if not isinstance(each, (str, Path)):
            raise TypeError(
                f"Expected paths of scans, but got {type(each).__name__}. For arrays, use the measures of ct_cncl.pipeline.metrics."
            )
    options = EvaluateOptions(
        reference=Path(reference),
        candidates=tuple(map(Path, several)),
        out=Path(out),
        input=_path(input),
        labels=_path(labels),
        label_names=_path(label_names),
        windows=(windows,) if isinstance(windows, str) else tuple(windows),
        region=region,
        names=(names,) if isinstance(names, str) else tuple(names),
        patients=_path(patients),
        patient_from_name=patient_from_name,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
    )
    return evaluate_files(options, page=write_page)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
