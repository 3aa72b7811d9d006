"""Build the record of an evaluation from evaluated slices: spectra, means with intervals, comparisons, charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal

from ct_cncl.pipeline.evaluation.all_slices import AllSlices
from ct_cncl.pipeline.evaluation.answer import evaluation_answer
from ct_cncl.pipeline.evaluation.charts import Chart, Table
from ct_cncl.pipeline.evaluation.curves import (
    calibration_chart,
    error_power_chart,
    noise_chart,
    noise_of_patients,
    spectra,
    tissue_charts,
)
from ct_cncl.pipeline.evaluation.measures import tissue_names
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE, Evaluation, Measure, Method, Provenance
from ct_cncl.pipeline.evaluation.summary import compare, patient_rows, summarise
from ct_cncl.pipeline.evaluation.verdict import verdict_sentences
from ct_cncl.transforms.common.hu import Window

OF_REFERENCE = ("noise", "cnr_fat", "nps_peak", "nps_mean")
"""Figures that the reference itself has."""


def build_record(
    collected: AllSlices,
    methods: Sequence[Method],
    figures: Sequence[Measure],
    *,
    windows: Mapping[str, Window],
    pixels: Sequence[tuple[float, float]],
    patients: Sequence[str],
    seed: int,
    title: str,
    kind: Literal["evaluation", "qa", "training"],
    provenance: Provenance,
    warnings: Sequence[str] = (),
    charts: Sequence[Chart] = (),
    tables: Sequence[Table] = (),
    tissues_by: str = "the smoothed reference",
) -> Evaluation:
    """Build the record from the results of all slices.

    Args:
        collected: results of all slices.
        methods: the reference, the input if there is one, and the candidates.
        figures: all measures.
        windows: windows by name.
        pixels: pixel size of each scan along columns and rows, mm.
        patients: patient of each scan.
        seed: seed of the bootstrap.
        title: title of the page.
        kind: kind of the record.
        provenance: how it was made.
        warnings: warnings for readers.
        charts: charts to show before those made here.
        tables: further tables.
        tissues_by: how tissues are identified, for the notes of charts.
    """
    powers = spectra(collected, pixels)
    judged = [method.key for method in methods if method.key != REFERENCE]
    of_patients = noise_of_patients(powers, pixels, patients, [REFERENCE, *judged])
    rows = patient_rows(collected.rows, figures, of_patients)
    own = [one for one in figures if one.key in OF_REFERENCE]
    own_rows = patient_rows(collected.reference_rows, own, of_patients)
    summaries = summarise(collected.reference_rows, own_rows, own, seed=seed)
    summaries += summarise(collected.rows, rows, figures, seed=seed)
    pairs = [(key, INPUT) for key in judged if INPUT in judged and key != INPUT]
    pairs += list(combinations([key for key in judged if key != INPUT], 2))
    comparisons = compare(collected.rows, rows, figures, pairs, seed=seed)
    found = Evaluation(
        title=title,
        kind=kind,
        summary=verdict_sentences(methods, figures, summaries, comparisons),
        methods=methods,
        measures=figures,
        slices=collected.views,
        slice_rows=collected.rows,
        patient_rows=rows,
        summaries=summaries,
        comparisons=comparisons,
        charts=[
            *charts,
            *noise_chart(powers, methods),
            *error_power_chart(collected, pixels, methods),
            *tissue_charts(
                summaries, [one for one in methods if one.key != REFERENCE], tissue_names(figures), by=tissues_by
            ),
            *calibration_chart(collected, methods),
        ],
        tables=tables,
        provenance=provenance,
        warnings=warnings,
        windows={name: (window.centre, window.width) for name, window in windows.items()},
    )
    return replace(found, verdict=evaluation_answer(found))
