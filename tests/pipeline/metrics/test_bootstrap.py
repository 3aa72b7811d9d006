import numpy as np
import pytest

from ct_cncl.pipeline.metrics import bootstrap, bootstrap_mean


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 600)


def coverage(draw, true, count, trials=800):
    """How often the interval holds the true mean, and how often it lies wholly below and above."""
    rng = np.random.default_rng(0)
    below = above = 0
    for trial in range(trials):
        found = bootstrap_mean(draw(rng, count), seed=trial)
        below, above = below + (found.high < true), above + (found.low > true)
    return 1 - (below + above) / trials, below / trials, above / trials


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("count", [6, 12, 40])
def test_of_normal_values_it_covers_95_percent(count):
    share, below, above = coverage(lambda rng, n: rng.normal(40, 2, n), 40.0, count)
    assert share == pytest.approx(0.95, abs=0.03)
    assert abs(below - above) < 0.04


@pytest.mark.usefixtures("few_resamples")
def test_of_skewed_values_it_covers_nearly_as_often_and_better_than_percentiles():
    share, *_ = coverage(lambda rng, n: rng.lognormal(0, 0.8, n), np.exp(0.32), 20)
    assert share > 0.91
    rng, hits = np.random.default_rng(0), 0
    for _ in range(800):
        values = rng.lognormal(0, 0.8, 20)
        means = values[rng.integers(0, 20, (600, 20))].mean(axis=1)
        hits += np.quantile(means, 0.025) <= np.exp(0.32) <= np.quantile(means, 0.975)
    assert share > hits / 800


def test_values_far_from_all_others_do_not_send_it_beyond_them():
    """Ten slices of one scan and three of others: without bounds the PSNR's interval began at 13 dB, SSIM's below 0."""
    values = np.array([56.6, 56.5, 56.7, 56.6, 56.5, 56.6, 56.8, 56.6, 56.5, 56.6, 48.0, 47.1, 49.3])
    found = bootstrap_mean(values, seed=0)
    assert found.low == 47.1
    assert found.mean < found.high <= 56.8
    apart = bootstrap_mean(-values, seed=0)
    assert (apart.high, apart.low < apart.mean) == (-47.1, True)


def test_six_values_are_enough_for_bounds():
    """Six of six on one side happen by chance in 3 % of cases: within 5 %."""
    assert bootstrap_mean(np.array([56.6, 56.5, 56.7, 48.0, 56.6, 56.5]), seed=0).low == 48.0


def test_its_width_is_the_one_of_student_s_t(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20000)
    values = np.random.default_rng(3).normal(0, 1, 30)
    found = bootstrap_mean(values, seed=1)
    half = 2.045 * values.std(ddof=1) / np.sqrt(30)  # t with 29 degrees of freedom
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_it_is_a_function_of_the_seed():
    values = np.random.default_rng(4).normal(0, 1, 15)
    assert bootstrap_mean(values, seed=0) == bootstrap_mean(values, seed=0)
    assert bootstrap_mean(values, seed=0) != bootstrap_mean(values, seed=1)


def test_few_or_equal_values():
    assert bootstrap_mean(np.array([1.0, 2.0, 4.0, 5.0, 3.0]), seed=0) == (3.0, None, None, 5)
    assert bootstrap_mean(np.full(6, 7.0), seed=0) == (7.0, 7.0, 7.0, 6)


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf, 2.0]])
def test_nothing_silent_comes_of_nan(bad):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array(bad), seed=0)
