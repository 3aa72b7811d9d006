import numpy as np
import pytest

from ct_cncl.pipeline.metrics import calibration_curve, rank_correlation


@pytest.mark.parametrize("rounded", [False, True])
def test_rank_correlation_is_that_of_mean_ranks_also_with_ties(rounded):
    rng = np.random.default_rng(0)
    first = rng.normal(0, 3, (40, 30))
    second = first**3 + rng.normal(0, 20, first.shape)
    if rounded:
        first, second = first.round(), second.round(-1)
    ranks = [
        (values.ravel() < values.ravel()[:, None]).sum(1) + (values.ravel() == values.ravel()[:, None]).sum(1) / 2
        for values in (first, second)
    ]
    assert rank_correlation(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_it_is_one_for_any_rising_and_minus_one_for_any_falling_relation():
    x = np.random.default_rng(1).normal(size=100)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)


def test_disagreement_that_scales_the_error_lies_on_the_diagonal():
    rng = np.random.default_rng(2)
    scale = rng.uniform(2, 40, 200_000)
    error = scale * rng.normal(0, np.sqrt(np.pi / 2), scale.size)  # mean absolute value: the scale
    curve = calibration_curve(scale, error)
    assert curve.error == pytest.approx(curve.disagreement, rel=0.03)
    assert (np.diff(curve.disagreement) > 0).all()
    flat = calibration_curve(scale, rng.permutation(error))
    assert flat.error == pytest.approx(np.abs(error).mean(), rel=0.05)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="constant"):
        rank_correlation(np.zeros(30), np.arange(30.0))
    with pytest.raises(ValueError, match="at least 20"):
        rank_correlation(np.arange(5.0), np.arange(5.0))
    with pytest.raises(ValueError, match="finite"):
        rank_correlation(np.full(30, np.nan), np.arange(30.0))
    with pytest.raises(ValueError, match="pairs"):
        calibration_curve(np.arange(30.0), np.arange(29.0))
