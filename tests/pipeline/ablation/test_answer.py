"""The answer of an ablation: the best variant over all slices, with the range over variants."""

from dataclasses import replace

from tiny_evaluation import METHODS, tiny_evaluation

from ct_cncl.pipeline.ablation.answer import ablation_answer
from ct_cncl.pipeline.evaluation.record import KeyFigure

ROWS = [{"variant": "paper", "gain_psnr": 3.0}, {"variant": "cncl", "gain_psnr": 4.25}, {"variant": "wild"}]


def test_the_best_variant_with_the_range_over_variants():
    found = replace(tiny_evaluation(), methods=METHODS[:3])
    verdict = ablation_answer(found, ROWS, split="validation", data_range=4096.0)
    assert verdict.sentence == "Best of 2 by PSNR: cncl gains 4.25 dB PSNR on the input."
    assert verdict.judged == "3 variants, trained alike, on the validation split; 1 could not be judged"
    where = "all slices of the validation split, range 4096 HU"
    gain = KeyFigure("Gain in PSNR", 4.25, "dB", 2, 3.0, 4.25, "smallest and largest of 2 variants", where, signed=True)
    assert verdict.figures[0] == gain


def test_nothing_judged_no_answer():
    assert ablation_answer(tiny_evaluation(), ROWS[2:], split="test", data_range=4096.0) is None
