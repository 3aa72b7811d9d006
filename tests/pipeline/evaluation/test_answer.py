"""The answer on the first screen: its sentence and figures are those of the record."""

from dataclasses import replace

import pytest
from tiny_evaluation import MEASURES, METHODS, tiny_evaluation

from ct_cncl.pipeline.evaluation.answer import evaluation_answer, judged
from ct_cncl.pipeline.evaluation.record import ComparisonRow, KeyFigure, Measure, SliceRow, SummaryRow

NOISE = Measure("noise", "Noise", "HU", "calm patches, 24 x 24 pixels", "", 2, "Spread.", "noise")
LEAKAGE = Measure("leakage", "Structure leakage", "", "correlation", "zero", 3, "Anatomy.", "structure")
BIAS = Measure("bias_bone", "Bias, bone", "HU", "smoothed reference, borders off", "zero", 1, "Off.", "tissue")


@pytest.fixture
def found():
    """Two slices of one patient, input and one candidate; too few values for an interval."""
    values = {
        "input": [{"psnr_full": 30.0, "noise": 40.0}, {"psnr_full": 31.0, "noise": 44.0}],
        "candidate1": [
            {"psnr_full": 33.0, "noise": 10.0, "leakage": 0.02},
            {"psnr_full": 35.5, "noise": 11.0, "leakage": 0.04},
        ],
    }
    rows = [
        SliceRow(key, "a.nii", number, "patient 1", own)
        for key, each in values.items()
        for number, own in enumerate(each)
    ]
    means = {(key, name): sum(own[name] for own in each) / 2 for key, each in values.items() for name in each[0]}
    summaries = [SummaryRow(key, name, mean, None, None, 2, "slices") for (key, name), mean in means.items()]
    comparison = ComparisonRow("candidate1", "input", "psnr_full", 3.75, None, None, 2, "slices")
    return replace(
        tiny_evaluation(), methods=METHODS[:3], measures=[MEASURES[0], NOISE, LEAKAGE], slice_rows=rows, patient_rows=[],
        summaries=summaries, comparisons=[comparison],
    )  # fmt: skip


def test_sentence_and_figures_are_the_record_s(found):
    verdict = evaluation_answer(found)
    assert verdict.judged == "cncl and the input against the reference (full dose): 2 slices, 1 scan, 1 patient"
    assert verdict.sentence == (
        "cncl gains 3.75 dB PSNR on the input, leaves 25 % of its noise (10.5 of 42.0 HU) and has a structure leakage of 0.030 (0 is best)."
    )
    two = "smallest and largest of 2 slices"
    assert list(verdict.figures) == [
        KeyFigure("Gain in PSNR", 3.75, "dB", 2, 3.0, 4.5, two, "window full 4096 HU", signed=True),
        KeyFigure("Noise left", 10.5, "HU", 2, 10.0, 11.0, two, "in calm soft tissue; input 42.0 HU"),
        KeyFigure("Structure leakage", 0.03, "", 3, 0.02, 0.04, two, "0 is best; above 0 anatomy was removed"),
    ]


def test_an_interval_is_shown_where_there_is_one(found):
    row = replace(found.comparisons[0], low=3.5, high=4.0, count=7, over="patients")
    figure = evaluation_answer(replace(found, comparisons=[row])).figures[0]
    assert (figure.low, figure.high, figure.range_of) == (3.5, 4.0, "95 % interval over 7 patients")


def test_the_best_of_several_is_said(found):
    more = [SummaryRow("candidate2", "psnr_full", 40.0, 39.0, 41.0, 7, "slices")]
    verdict = evaluation_answer(replace(found, methods=METHODS, summaries=[*found.summaries, *more]))
    assert verdict.sentence.startswith("Best of 2 by PSNR: <img")
    assert [figure.title for figure in verdict.figures] == ["PSNR"]
    assert verdict.figures[0].value == 40.0


def test_without_an_input_the_largest_bias_is_told(found):
    summaries = [row for row in found.summaries if row.method != "input" and row.measure != "leakage"]
    bias = SummaryRow("candidate1", "bias_bone", -2.5, -3.0, -2.0, 9, "slices")
    alone = replace(
        found, methods=[METHODS[0], METHODS[2]], measures=[MEASURES[0], NOISE, BIAS], summaries=[*summaries, bias],
        comparisons=[], slice_rows=[row for row in found.slice_rows if row.method != "input"],
    )  # fmt: skip
    verdict = evaluation_answer(alone)
    assert verdict.sentence == "cncl has PSNR 34.25 dB, holds 10.5 HU of noise and is off by at most -2.5 HU (bone)."
    assert verdict.figures[2].title == "Largest bias, bone"
    assert judged(alone) == "cncl against the reference (full dose): 2 slices, 1 scan, 1 patient"


def test_no_figure_no_answer(found):
    assert evaluation_answer(replace(found, measures=[])) is None
    assert evaluation_answer(replace(found, summaries=[])) is None


def test_one_slice_has_no_range(found):
    one = [row for row in found.slice_rows if row.slice == 0]
    figure = evaluation_answer(replace(found, slice_rows=one)).figures[1]
    assert (figure.low, figure.high, figure.range_of) == (None, None, "1 slice, no range")
