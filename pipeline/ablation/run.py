"""``ct-cncl ablate``: train variants one after another, evaluate them on the same slices, and compare them in a table."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ct_cncl.pipeline.ablation.answer import ablation_answer
from ct_cncl.pipeline.ablation.plan import Ablation, checked_plan, join_record, values_lost
from ct_cncl.pipeline.ablation.results import (
    FAILED,
    VariantResult,
    checkpoint_to_evaluate,
    evaluation_folder,
    is_evaluated,
    variant_result,
)
from ct_cncl.pipeline.ablation.table import as_csv, as_markdown, digits_of, headers, input_row, readable_rows
from ct_cncl.pipeline.common.checkpoint_file import LAST, load_file
from ct_cncl.pipeline.evaluation.charts import Table
from ct_cncl.pipeline.evaluation.record import PAGE, Evaluation
from ct_cncl.pipeline.handlers.budget import USED_KEY
from ct_cncl.pipeline.handlers.pace import duration
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.training.run_report import Candidate, evaluate_runs, pairs_by_number, read_metrics
from ct_cncl.pipeline.workflow.config_checks import about_what_is_there
from ct_cncl.pipeline.workflow.overlays import Variant
from ct_cncl.pipeline.workflow.run import config_file
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.terminal import say
from ct_cncl.transforms.series.values import RESULT


def run_ablation(ablation: Ablation) -> list[VariantResult]:
    """Train and evaluate every variant, continuing where an earlier call stopped, and write the table and the page.

    ``out`` then holds ``runs/NAME`` (usable like runs of ``ct-cncl train``), and ``results.csv``, ``results.md`` and
    ``report.html``, which are rewritten after each variant. If a training fails because a loss is not finite, the table notes
    it, and the next variant follows.

    Returns:
        The results of the variants of this call, in their order. Runs of other variants stay in ``out``, and reappear in the table
        when the variants are named again.

    Raises:
        ConfigError: the budget, a variant or a key cannot be used. This is raised before anything is trained.
        DataError: the data set cannot be used.
        OutputError: ``out`` holds an ablation with other data, overrides, budget or split, or something else, or another process is
            working there.
    """
    chosen, overrides = checked_plan(ablation)
    with alone_in(ablation.out):
        return _run(ablation, chosen, overrides)


def _run(ablation: Ablation, chosen: list[Variant], overrides: Mapping[str, Any]) -> list[VariantResult]:
    record, chosen = join_record(ablation, chosen, overrides)
    results: list[VariantResult] = []
    started = time.perf_counter()
    say(_plan_in_words(ablation, chosen))
    for number, one in enumerate(chosen, start=1):
        run = ablation.out / "runs" / one.name
        say(f"{number}/{len(chosen)}  {one.name}")
        if not run.is_dir() and (lost := values_lost(one, overrides)):
            say(lost)
        _timed("trained", lambda one=one, run=run: _train(ablation, one, run, overrides))  # type: ignore[misc]
        _timed(f"evaluated on all slices of the {ablation.split} split", lambda run=run: _evaluate(ablation, run))  # type: ignore[misc]
        results.append(variant_result(one.name, run, split=ablation.split))
        write_results(ablation, results, record)
        gc.collect()  # engines and handlers refer to each other; free their networks before the next variant
    table = (ablation.out / "results.md").read_text(encoding="utf-8")
    say(f"{_variants(chosen)} in {duration(time.perf_counter() - started).removeprefix('about ')}")
    say("", *table.split("\n"), f"written to {ablation.out}: results.csv, results.md, {PAGE}")
    return results


def _plan_in_words(ablation: Ablation, chosen: Sequence[Variant]) -> str:
    """A line that announces what is going to be done."""
    if ablation.minutes is None:
        return f"{_variants(chosen)}, {ablation.iterations} iterations of training each; an estimate of the time follows after the first steps"
    whole = duration(60 * ablation.minutes * len(chosen))
    return f"{_variants(chosen)}, {ablation.minutes:g} min of training each: {whole}, plus validation and evaluation"


def _variants(chosen: Sequence[Variant]) -> str:
    return f"{len(chosen)} variant{'s' * (len(chosen) != 1)}"


def _timed(done: str, work: Callable[[], bool]) -> None:
    """Do a step, and print how long it took, unless it had been done before."""
    started = time.perf_counter()
    if work():
        say(f"     {done}: {duration(time.perf_counter() - started)}")


def _train(ablation: Ablation, one: Variant, run: Path, overrides: Mapping[str, Any]) -> bool:
    """Train from the start or from the run's last checkpoint. Return False, without training, if the run has failed or used its budget."""
    if (run / FAILED).is_file():
        return False
    resume = (run / LAST).is_file()
    if resume and load_file(run / LAST)["trainer"][USED_KEY] >= 1.0:
        return False
    if not resume:
        # It may be left from an attempt that wrote no checkpoint, perhaps with another overlay.
        (run / "config.json").unlink(missing_ok=True)
    budget = {"budget_minutes": ablation.minutes, "budget_iterations": ablation.iterations}
    values = {} if resume else {**about_what_is_there(one.config(), overrides), **budget}
    settings = () if resume else one.settings
    try:
        train_bundle(
            out=run,
            data=ablation.dataset,
            overlays=[] if resume else [*map(str, one.overlays), str(config_file("budget.json"))],
            resume=resume,
            assignments=[*settings, *(f"{key}={json.dumps(value)}" for key, value in values.items())],
        )
    except FloatingPointError as error:
        with replacing(run / FAILED) as temporary:
            temporary.write_text(json.dumps({"error": str(error)}, indent=2) + "\n", encoding="utf-8")
        say(f"     {error} Continuing with the next variant.")
    return True


def _evaluate(ablation: Ablation, run: Path) -> bool:
    """Evaluate the run's best checkpoint. Return False if it has none or has been evaluated already."""
    folder = evaluation_folder(run, ablation.split)
    judged = checkpoint_to_evaluate(run)
    if judged is None or is_evaluated(folder):
        return False
    evaluate_run(
        judged,
        data=ablation.dataset,
        split=ablation.split,
        out=folder,
        overwrite=True,
        overlays=[str(config_file("keep_slices.json"))],
        assignments=[f"kept_slices={ablation.pictures}"],
    )
    return True


def write_results(ablation: Ablation, results: Sequence[VariantResult], record: Mapping[str, Any]) -> None:
    """Write ``results.csv``, ``results.md`` and ``report.html``.

    Args:
        ablation: gives the folder and the data set.
        results: results of the variants so far.
        record: the ablation's record, as in its ``ablation.json``.
    """
    data_range = float(record["overrides"]["validate#data_range_hu"])
    rows = [result.row for result in results]
    texts = {
        "results.csv": as_csv(rows, data_range=data_range),
        "results.md": f"{conditions(record, rows)}\n\n{as_markdown(rows, data_range=data_range)}",
    }
    for name, text in texts.items():
        with replacing(ablation.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_page(_evaluation(ablation, results, record, data_range), ablation.out / PAGE)


def _evaluation(
    ablation: Ablation, results: Sequence[VariantResult], record: Mapping[str, Any], data_range: float
) -> Evaluation:
    """The evaluation for the page: every variant on the kept slices, the table over all slices, and the curves over training."""
    rows = [result.row for result in results]
    numbers: list[int] = next((result.slices["number"].tolist() for result in results if result.slices), [])
    candidates = [
        Candidate(
            result.name,
            str(result.row.get("note") or ""),
            _maps(result),
            read_metrics(ablation.out / "runs" / result.name),
        )
        for result in results
    ]
    keys, _ = readable_rows(rows)
    table = Table(
        "variants",
        "Variants over all slices",
        headers(data_range, keys),
        [[row.get(key) for key in keys] for row in [input_row(rows), *rows]],
        [0 if any(isinstance(row.get(key), int) for row in rows) else digits_of(key) for key in keys],
        conditions(record, rows),
    )
    found = evaluate_runs(
        candidates,
        pairs_by_number(ablation.dataset, ablation.split, numbers),
        title="Variants compared",
        data_range=data_range,
        tables=[table],
        warnings=["The table of variants is over all slices of the split."],
        by_minutes=record["minutes"] is not None,
    )
    return replace(found, verdict=ablation_answer(found, rows, split=ablation.split, data_range=data_range))


def _maps(result: VariantResult) -> dict[str, np.ndarray]:
    """The result and, if the network has two branches, the maps of the kept slices, by the names of ``denoise``."""
    if not result.slices:
        return {}
    image, content, denoised, pred = (result.slices[key] for key in ("image", "content", "denoised", "pred"))
    if "psnr_content" not in result.row:
        return {RESULT: pred}
    return {RESULT: pred, "noise": image - denoised, "content": content, "disagreement": np.abs(content - denoised)}


def conditions(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A few sentences on what all variants have in common."""
    values = record["overrides"]
    budget = (
        f"{record['iterations']} iterations"
        if record["iterations"] is not None
        else f"{record['minutes']:g} min of training (validation and checkpoints not counted)"
    )
    textured = any(row.get("nps_distance") is not None for row in rows)
    reason = next((row["nps_reason"] for row in rows if row.get("nps_reason")), None)
    timed = sorted({row["timed_on"] for row in rows if row.get("timed_on")})
    return (
        f"Each variant: {budget}, seed {values['seed']}, batches of {values['batch_size']} patches of {values['patches#size']} x "
        f"{values['patches#size']}, learning rate falling from its own start to 0 by a half cosine over the budget. Means over "
        f"all slices of the {record['split']} split, best.pt of each run, range {values['validate#data_range_hu']:g} HU. Seconds a slice: "
        f"median of forward passes of one slice at a time ({'; '.join(timed) or 'none'})."
        + (
            " NPS distance: noise power spectra in the calmest soft tissue, 0 the reference's noise, 1 none left."
            if textured
            else f" No NPS distance (of noise power spectra): {reason}."
            if reason
            else ""
        )
    )
