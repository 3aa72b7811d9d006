"""``ct-cncl evaluate``: evaluate files of any method against a reference."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ct_cncl.pipeline.evaluation.all_slices import MethodScans, measure_slices
from ct_cncl.pipeline.evaluation.build_record import build_record
from ct_cncl.pipeline.evaluation.labels import find_labels
from ct_cncl.pipeline.evaluation.matching import OpenedScan, left_over, locate, match
from ct_cncl.pipeline.evaluation.measures import REGIONS, measures
from ct_cncl.pipeline.evaluation.provenance import CONSTANTS, provenance
from ct_cncl.pipeline.evaluation.record import INPUT, MAPS, PAGE, REFERENCE, Evaluation, Method
from ct_cncl.pipeline.evaluation.tables import as_text, write_tables
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import scratch_folder
from ct_cncl.transforms.common.hu import WINDOWS, Window
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.dataset.patients import DEFAULT_NAME_RULE, PatientFinder
from ct_cncl.transforms.series.values import RESULT

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of ``ct-cncl evaluate``; see its ``--help``.

    Raises:
        ValueError: there is nothing to evaluate, or a value is out of range.
    """

    reference: Path
    candidates: tuple[Path, ...]
    out: Path
    input: Path | None = None
    labels: Path | None = None
    label_names: Path | None = None
    windows: tuple[str, ...] = ("full", "chest", "abdomen")
    region: str = "scan"
    names: tuple[str, ...] = ()
    patients: Path | None = None
    patient_from_name: str = DEFAULT_NAME_RULE
    shown: int = 20
    seed: int = 0
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.candidates and self.input is None:
            raise ValueError(
                "Expected at least one candidate to evaluate, but got none. Name files or folders after REF."
            )
        if self.label_names is not None and self.labels is None:
            raise ValueError("Expected label volumes with --label-names, but got none. Add --labels.")
        if self.region not in REGIONS:
            raise ValueError(f"Expected region to be one of {', '.join(REGIONS)}, but got {self.region!r}.")
        if self.names and len(self.names) != len(self.candidates):
            raise ValueError(
                f"Expected a name for each of {len(self.candidates)} candidates, but got {len(self.names)}. Name all of them or none."
            )
        if self.shown < 1 or self.seed < 0:
            raise ValueError(
                f"Expected 1 or more slices and a seed of 0 or more, but got {self.shown} and {self.seed}."
            )


def evaluate_files(options: EvaluateOptions, *, page: Callable[[Evaluation, Path], object] | None = None) -> Evaluation:
    """Evaluate methods and write the tables to ``options.out``.

    Args:
        options: what to evaluate, and how.
        page: function that writes the report (this package does not import the one that makes it). It is called before the
            tables are written, so that a run that was killed does not look complete.

    Returns:
        All results.

    Raises:
        DataError: scans do not belong together; the message names them.
        ScanError: scans cannot be read, or are not in HU.
        OutputError: ``out`` holds an evaluation or cannot be written, or another process is writing to it.
        ValueError: a window is unknown.
    """
    windows = parse_windows(options.windows)
    with alone_in(options.out):
        return _evaluation(options, windows, page)


def _evaluation(
    options: EvaluateOptions, windows: dict[str, Window], page: Callable[[Evaluation, Path], object] | None
) -> Evaluation:
    if (options.out / SUMMARY).exists() and not options.overwrite:
        raise OutputError(
            f"{options.out} already holds an evaluation. Replace it with --overwrite, or choose another folder."
        )
    with scratch_folder(options.out) as scratch:
        evaluation = _evaluate(options, windows, scratch)
    if page is not None:
        page(evaluation, options.out / PAGE)
    write_tables(evaluation, options.out)
    return evaluation


def parse_windows(texts: Iterable[str]) -> dict[str, Window]:
    """Parse windows: names of ``WINDOWS``, or ``NAME=CENTRE/WIDTH``.

    Raises:
        ValueError: a name is unknown, or the numbers are invalid.

    >>> parse_windows(["abdomen", "liver=60/160"])["liver"]
    Window(centre=60.0, width=160.0)
    """
    found = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        if not numbers and name in WINDOWS:
            found[name] = WINDOWS[name]
            continue
        try:
            centre, width = (float(number) for number in numbers.split("/"))
        except ValueError:
            centre, width = 0.0, -1.0
        if not (width > 0 and abs(centre) < 1e5 and width < 1e5 and name.replace("_", "").isalnum()):
            raise ValueError(
                f"Expected a window to be one of {', '.join(WINDOWS)}, or NAME=CENTRE/WIDTH in HU, but got {text!r}."
            )
        found[name] = Window(centre, width)
    if not found:
        raise ValueError("Expected at least one window, but got none. Name full for the whole range.")
    return found


def _evaluate(options: EvaluateOptions, windows: dict[str, Window], scratch: Path) -> Evaluation:
    finder = PatientFinder(options.patients, options.patient_from_name)
    reference = locate(options.reference, finder, scratch)[RESULT]
    methods = _methods(options)
    series, warnings = _matched(options, methods, reference, finder, scratch)
    numbers = {patient: n for n, patient in enumerate(dict.fromkeys(scan.patient for scan in reference), start=1)}
    patients = [f"patient {numbers[scan.patient]}" for scan in reference]
    labels = None
    if options.labels is not None:
        labels = find_labels(options.labels, reference, finder, scratch, names=options.label_names)
    figures = measures(
        windows, region=options.region, with_input=options.input is not None,
        with_maps=any("disagreement" in one.maps for one in series), labels=labels.classes if labels else None,
    )  # fmt: skip
    total = sum(scan.slices.count for scan in reference)
    with tqdm(
        total=total, desc="evaluating", unit="slice", disable=not (options.progress and sys.stderr.isatty())
    ) as bar:
        collected = measure_slices(
            reference, patients, series, figures,
            windows=windows, region=options.region, shown=options.shown, labels=labels, tick=bar.update,
        )  # fmt: skip
    return build_record(
        collected,
        methods,
        figures,
        windows=windows,
        pixels=[scan.grid.pixel_mm for scan in reference],
        patients=patients,
        seed=options.seed,
        title=f"Evaluation of {', '.join(m.name for m in methods if m.role == 'candidate') or 'the input'}",
        kind="evaluation",
        provenance=provenance(
            windows=windows,
            seeds={"bootstrap": options.seed},
            files={method.name: method.description for method in methods},
            constants=CONSTANTS | ({"tissues": labels.described()} if labels else {}),
        ),
        tissues_by="labels" if labels else "the smoothed reference",
        warnings=[*warnings, *(labels.warnings if labels else ()), *_cautions(reference, patients, options)],
    )


def _methods(options: EvaluateOptions) -> list[Method]:
    """Reference, input and candidates, named after their files and made unique by their folders."""
    found = [Method(REFERENCE, "reference", "reference", options.reference.resolve().name)]
    if options.input is not None:
        found.append(Method(INPUT, "input", "input", options.input.resolve().name))
    taken = {method.name for method in found}
    for number, path in enumerate(options.candidates, start=1):
        whole = path.resolve()
        name = options.names[number - 1] if options.names else whole.name.split(".nii")[0]
        if name in taken and not options.names:
            name = f"{whole.parent.name}/{name}"
        if name in taken:
            name = f"{name} ({number})"
        taken.add(name)
        found.append(Method(f"candidate{number}", name, "candidate", whole.name))
    return found


def _matched(
    options: EvaluateOptions,
    methods: Sequence[Method],
    reference: Sequence[OpenedScan],
    finder: PatientFinder,
    scratch: Path,
) -> tuple[list[MethodScans], list[str]]:
    """The scans of every method in the order of the reference, and warnings about them."""
    paths = {INPUT: options.input} | {f"candidate{n}": path for n, path in enumerate(options.candidates, start=1)}
    series, warnings = [], []
    for method in methods:
        path = paths.get(method.key)
        if path is None:
            continue
        found = locate(path, finder, scratch, kinds=(RESULT,) if method.key == INPUT else (RESULT, *MAPS))
        scans = match(reference, found[RESULT], name=method.name)
        maps = {
            name: match(reference, found[name], name=f"{name} of {method.name}") for name in MAPS if found.get(name)
        }
        series.append(MethodScans(method.key, scans, maps))
        if unused := left_over(scans, found[RESULT]):
            warnings.append(
                f"{method.name}: {len(unused)} scans belong to no scan of the reference and were ignored ({', '.join(unused[:3])})."
            )
        lacking = sum(place is None for own, other in zip(reference, scans) for place in own.grid.partners(other.grid))
        if lacking:
            total = sum(scan.slices.count for scan in reference)
            warnings.append(f"{method.name}: {lacking} of {total} slices are missing; its means are over the others.")
    return series, warnings


def _cautions(reference: Sequence[OpenedScan], patients: Sequence[str], options: EvaluateOptions) -> list[str]:
    found = []
    count = len(set(patients))
    if count < LEAST_VALUES:
        found.append(
            f"Only {counted(count, 'patient')}: "
            + (
                "intervals are over slices and say nothing about other patients."
                if sum(scan.slices.count for scan in reference) >= LEAST_VALUES
                else "too few for intervals."
            )
        )
    guessed = sum(not scan.known for scan in reference)
    if guessed and len(reference) > 1 and options.patient_from_name == DEFAULT_NAME_RULE:
        found.append(
            f"The patients of {guessed} of {len(reference)} scans were taken from file names, up to the first underscore: {count} patients. "
            "If that is wrong, use --patients or --patient-from-name."
        )
    return found


def describe(evaluation: Evaluation, out: Path) -> str:
    """Text that the command prints: the table, the summary, the warnings and where the files are."""
    lines = [as_text(evaluation), "", *evaluation.summary, *(f"Note: {text}" for text in evaluation.warnings)]
    return "\n".join([*lines, "", f"written to {out}: {PAGE}, {SUMMARY}, slices.csv, patients.csv, comparisons.csv"])
