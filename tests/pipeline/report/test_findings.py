"""What stands above a plot: computed here by hand from the plot's own curves."""

import numpy as np
import pytest

from ct_cncl.pipeline.evaluation.charts import Chart, Curve
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE
from ct_cncl.pipeline.report.findings import finding

F = np.linspace(0.1, 0.7, 13)
HUMP = np.exp(-(((F - 0.3) / 0.1) ** 2))


def chart(key, *curves, categories=()):
    made = [Curve(method, name, np.asarray(x, float), np.asarray(y, float)) for method, name, x, y in curves]
    return Chart(key, "title", "x", "y", made, categories=categories)


def noise(factor, shift=0.0):
    """A spectrum of so much of the input's noise, at frequencies moved by so much."""
    y = factor**2 * np.exp(-(((F - 0.3 - shift) / 0.1) ** 2))
    return finding(chart("nps", (INPUT, "input", F, HUMP), ("candidate1", "a", F, y)))


def test_half_of_the_noise_with_the_same_texture():
    assert noise(0.5) == "a: 50 % of the input's noise above 0.10/mm, same texture"


@pytest.mark.parametrize(("shift", "word"), [(-0.1, "coarser"), (0.1, "finer")])
def test_texture_by_the_mean_frequency(shift, word):
    assert noise(0.5, shift).endswith(f", {word}")


def test_the_worst_tissue_is_named_with_its_sign():
    bias = chart("tissue_bias", ("candidate1", "a", range(3), [1.0, -4.04, np.nan]), categories=("air", "lung", "fat"))
    assert finding(bias) == "a: at most \N{MINUS SIGN}4.0 HU off (lung)"


def test_spread_is_a_share_of_the_input_s():
    spread = chart("tissue_std", (INPUT, "input", [0, 1], [10, 20]), ("candidate1", "a", [0, 1], [5, 5]))
    assert finding(spread) == "a: 25 to 50 % of the input's error"


def test_error_power_says_where_it_is_more_than_the_input_s():
    below = chart("nps_error", (INPUT, "input", F, HUMP), ("candidate1", "a", F, HUMP / 2))
    assert finding(below) == "a: most error at 0.30/mm, below the input everywhere"
    more = HUMP.copy()
    more[:3] = 2  # of 13 frequencies
    above = chart("nps_error", (INPUT, "input", F, HUMP), ("candidate1", "a", F, np.where(more == 2, more, HUMP / 2)))
    assert finding(above) == "a: most error at 0.10/mm, more than the input at 23 % of frequencies"


@pytest.mark.parametrize(
    ("stretch", "words"),
    [(1.0, "as sharp as without noise"), (0.75, "25 % less sharp than without noise"), (1.2, "20 % sharper than without noise")],
)  # fmt: skip
def test_sharpness_by_the_frequency_of_half_the_transfer(stretch, words):
    x = np.linspace(0, 1, 2001)
    edges = chart("ttf_50", (REFERENCE, "no noise", x, 1 - x), ("candidate1", "a", x, 1 - x / stretch))
    assert finding(edges) == f"a: {words}"


def test_detectability_changes_by_what_it_does_at_each_dose():
    doses = [0.25, 1.0]
    known = (INPUT, "input", doses, [2.0, 4.0])
    assert finding(chart("detectability_6", known, ("candidate1", "a", doses, [1.9, 4.2]))) == (
        "a: d' changes by \N{MINUS SIGN}0.1 to +0.2"
    )
    assert finding(chart("detectability_6", known, ("candidate1", "a", doses, [2.2, 4.2]))) == "a: d' changes by +0.2"


def test_disagreement_rises_with_the_error_or_does_not():
    rising = chart("calibration", ("candidate1", "a", [0, 1], [10.0, 38.2]), ("", "equal", [0, 1], [0, 1]))
    assert finding(rising) == "a: error rises with disagreement, 10.0 to 38.2 HU"
    flat = chart("calibration", ("candidate1", "a", [0, 1], [10.0, 10.1]))
    assert finding(flat) == "a: error does not rise with disagreement, 10.0 to 10.1 HU"


def test_training_says_its_best_and_where_it_ends():
    assert finding(chart("training_psnr", ("candidate1", "a", [100, 200, 300], [40, 42.5, 42]))) == (
        "a: best 42.50 dB at 200 x"
    )
    assert finding(chart("training_loss", ("candidate1", "a", [100, 200], [2.0, 0.5]))) == "a: from 2 to 0.5"


def test_linearity_noise_over_dose_and_contrast():
    lines = chart("linearity", ("candidate1", "a", [-800, 50], [-1.0, -2.44]))
    assert finding(lines) == "a: at most \N{MINUS SIGN}2.4 HU off, at +50 HU"
    doses = [0.25, 1.0]
    left = chart("noise", (INPUT, "input", doses, [20, 10]), ("candidate1", "a", doses, [8, 5]))
    assert finding(left) == "a: 40 to 50 % of the scan's noise is left"
    kept = chart(
        "contrast_kept", ("candidate1", "3 mm", [100, 41], [100, 47]), ("candidate1", "10 mm", [100, 41], [100, 69])
    )
    assert finding(kept) == "At 41 % of the noise, 47 to 69 % of the contrast is kept"


def test_a_chart_of_another_kind_says_nothing():
    assert finding(chart("other", ("candidate1", "a", F, HUMP))) == ""
