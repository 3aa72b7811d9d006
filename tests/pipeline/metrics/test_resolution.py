import math

import numpy as np
import pytest

from ct_cncl.pipeline.metrics.resolution import crossing, fit_disc, task_transfer

PIXEL = 0.6


def gaussian_disc(sigma_mm, *, contrast=300.0, radius_mm=13.0, centre=(40.3, 38.8), size=80, noise=0.0, seed=0):
    """A disc under a Gaussian point spread, sampled: computed on a grid eight times as fine, so that no pixel is averaged."""
    fine = 8
    n = size * fine
    axis = (
        np.arange(n) - (fine - 1) / 2
    ) / fine  # in pixels, 0 at the first pixel's centre... shifted by its sub-samples
    x, y = (axis[:, None] - centre[0]) * PIXEL, (axis[None, :] - centre[1]) * PIXEL
    soft = np.clip(0.5 - (np.hypot(x, y) - radius_mm) / (PIXEL / fine), 0, 1)
    f = np.fft.fftfreq(n, PIXEL / fine)
    transfer = np.exp(-2 * (math.pi * sigma_mm * f) ** 2)
    # sampled at the pixel's centre, which lies half a sub-sample beside the fourth one
    shift = np.exp(1j * math.pi * f * PIXEL / fine)
    spread = np.fft.fft2(soft) * np.outer(transfer * shift, transfer * shift)
    image = contrast * np.fft.ifft2(spread).real[3::fine, 3::fine]
    return image + np.random.default_rng(seed).normal(0, noise, image.shape)


@pytest.mark.parametrize("sigma_mm", [0.5, 0.8, 1.2])
@pytest.mark.parametrize("contrast", [-100.0, 30.0, 900.0])
def test_of_a_gaussian_it_is_the_gaussian_s_within_2_percent(sigma_mm, contrast):
    image = gaussian_disc(sigma_mm, contrast=contrast) + 20
    found = task_transfer(image, centre=(40.0, 40.0), radius_mm=13.0, pixel_mm=PIXEL)
    expected = np.exp(-2 * (math.pi * sigma_mm * found.frequency) ** 2)
    used = expected > 0.05
    assert np.abs(found.ttf - expected)[used].max() < 0.02
    half = math.sqrt(math.log(2) / 2) / (math.pi * sigma_mm)
    if half < 0.5 / PIXEL:
        assert found.half_per_mm == pytest.approx(half, rel=0.02)


def test_the_disc_is_found():
    disc = fit_disc(gaussian_disc(0.8), centre=(42.0, 37.0), radius=13 / PIXEL * 0.9)
    assert (disc.x, disc.y) == pytest.approx((40.3, 38.8), abs=0.02)
    assert disc.radius * PIXEL == pytest.approx(13.0, abs=0.05)
    assert disc.contrast == pytest.approx(300, rel=0.01)


def test_with_noise_a_mean_over_realizations_still_tells():
    image = np.mean([gaussian_disc(0.8, contrast=100, noise=20.0, seed=k) for k in range(25)], axis=0)
    found = task_transfer(image, centre=(40.0, 39.0), radius_mm=13.0, pixel_mm=PIXEL)
    assert found.half_per_mm == pytest.approx(math.sqrt(math.log(2) / 2) / (math.pi * 0.8), rel=0.08)


def test_a_wider_spread_has_lower_half_and_tenth():
    sharp, soft = (task_transfer(gaussian_disc(s), centre=(40, 39), radius_mm=13.0, pixel_mm=PIXEL) for s in (0.7, 1.0))
    assert soft.half_per_mm == pytest.approx(sharp.half_per_mm * 0.7, rel=0.02)
    assert soft.tenth_per_mm == pytest.approx(sharp.tenth_per_mm * 0.7, rel=0.03)


def test_what_has_no_disc_is_refused():
    with pytest.raises(ValueError, match="half a radius around it inside the image"):
        fit_disc(np.zeros((40, 40)), centre=(20, 20), radius=19)
    with pytest.raises(ValueError, match="a disc with contrast"):
        fit_disc(np.zeros((40, 40)), centre=(20, 20), radius=8)


def test_crossing():
    assert math.isnan(crossing(np.arange(3.0), np.array([1.0, 0.9, 0.8]), 0.5))
    assert crossing(np.arange(3.0), np.array([1.0, 0.5, 0.6]), 0.5) == 1.0
