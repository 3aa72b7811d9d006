"""Telling round from spiculated: areas that are known, and nothing learned from what is tested."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from ct_cncl.pipeline.metrics.characterisation import area_under_curve, told_apart
from ct_cncl.pipeline.metrics.inserts import Insert, insert_image
from ct_cncl.pipeline.metrics.observer import difference_of_gaussian_channels


def test_the_area_is_scipy_s_and_its_interval_covers():
    """d' = 1 has the area Phi(1 / sqrt 2) = 0.760; 95 % of the intervals hold it."""
    rng, true, covered = np.random.default_rng(0), 0.5 * (1 + math.erf(0.5)), 0
    for _ in range(400):
        a, b = rng.normal(1, 1, 60), rng.normal(0, 1, 50)
        found = area_under_curve(a, b)
        covered += found.low <= true <= found.high
    assert covered / 400 == pytest.approx(0.95, abs=0.03)
    assert found.area == pytest.approx(mannwhitneyu(a, b).statistic / (60 * 50))


@pytest.mark.parametrize(("contrast", "lowest", "highest"), [(-50.0, 0.9, 1.0), (0.0, 0.42, 0.58)])
def test_shapes_in_white_noise(contrast, lowest, highest):
    """With contrast they are told apart; without, the test images are guessed, whatever training images would say."""
    rng = np.random.default_rng(1)
    stacks = []
    for spiculated in (False, True):
        image = insert_image(Insert(contrast, 8.0, spiculated=spiculated), (0.75, 0.75))
        half, stack = len(image) // 2, rng.normal(0, 20, (400, 33, 33))
        stack[:, 16 - half : 17 + half, 16 - half : 17 + half] += image
        stacks.append(stack)
    channels = difference_of_gaussian_channels(33)
    found = told_apart(*stacks, channels)
    assert lowest <= found.area <= highest
    with pytest.raises(ValueError, match="regions for"):
        told_apart(stacks[0][:4], stacks[1][:4], channels)
