import math

import numpy as np
import pytest

from ct_cncl.pipeline.metrics import (
    channelised_hotelling,
    difference_of_gaussian_channels,
)

SIZE, SD = 33, 10.0
AXIS = np.arange(SIZE) - SIZE // 2
SIGNAL = 5.0 * np.exp(-(AXIS[:, None] ** 2 + AXIS[None, :] ** 2) / (2 * 3.0**2))
"""A Gaussian of sigma 3 pixels: an ideal observer in white noise has d' = |signal| / sd."""
CHANNELS = {
    "dog": difference_of_gaussian_channels(SIZE),
    "gaussian": np.outer(*[np.exp(-(AXIS**2) / (2 * 3.0**2))] * 2).reshape(-1, 1),
}


def analytic(channels):
    """d'^2 = (U^T s)^T (sd^2 U^T U)^-1 (U^T s) in white noise."""
    mean = channels.T @ SIGNAL.ravel()
    return math.sqrt(mean @ np.linalg.solve(SD**2 * channels.T @ channels, mean))


def regions(rng, count):
    noise = rng.normal(0, SD, (2 * count, SIZE, SIZE))
    return noise[:count] + SIGNAL, noise[count:]


@pytest.mark.parametrize("name", CHANNELS)
def test_d_prime_in_white_noise_is_the_analytic_value_within_5_percent(name):
    rng = np.random.default_rng(0)
    found = [channelised_hotelling(*regions(rng, 400), CHANNELS[name]).d_prime for _ in range(4)]
    assert np.mean(found) == pytest.approx(analytic(CHANNELS[name]), rel=0.05)


def test_few_samples_are_corrected_and_the_jackknife_knows_the_spread():
    rng = np.random.default_rng(1)
    channels = CHANNELS["dog"]
    found = [channelised_hotelling(*regions(rng, 25), channels) for _ in range(150)]
    true = analytic(channels)
    # free of bias in the square
    assert np.mean([one.d_prime**2 for one in found]) == pytest.approx(true**2, rel=0.06)
    assert np.median([one.error for one in found]) == pytest.approx(np.std([one.d_prime for one in found]), rel=0.3)


def test_no_signal_is_guessing():
    rng = np.random.default_rng(2)
    squares = []
    for _ in range(30):
        absent = rng.normal(0, SD, (120, SIZE, SIZE))
        found = channelised_hotelling(absent[:60], absent[60:], CHANNELS["dog"])
        squares.append(found.d_prime)
    assert np.mean(squares) < 0.35
    assert channelised_hotelling(absent[:60], absent[60:], CHANNELS["dog"]).area == pytest.approx(0.5, abs=0.12)


def test_area_of_a_known_d_prime():
    rng = np.random.default_rng(3)
    channel = np.full((SIZE * SIZE, 1), 1 / SIZE)
    noise = rng.normal(0, 1, (4000, SIZE, SIZE))
    found = channelised_hotelling(noise[:2000] + 1 / SIZE, noise[2000:], channel)
    assert found.d_prime == pytest.approx(1.0, abs=0.08)
    assert found.area == pytest.approx(0.7602, abs=0.02)


def test_what_cannot_be_told_is_refused():
    channels = CHANNELS["dog"]
    few = np.zeros((5, SIZE, SIZE))
    with pytest.raises(ValueError, match="at least"):
        channelised_hotelling(few, few, channels)
    with pytest.raises(ValueError, match="k \\* k"):
        channelised_hotelling(few[:, :5], few, channels)
    with pytest.raises(ValueError, match="finite"):
        channelised_hotelling(few + np.nan, few, channels)
