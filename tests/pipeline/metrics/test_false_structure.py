"""False structure: the number that theory knows for Gaussian noise, and methods that scale, smooth or invent."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ct_cncl.pipeline.metrics.false_structure import blobs_per_cm2
from ct_cncl.pipeline.metrics.inserts import Insert, insert_image

SIGMA = 3.0
AXIS = np.arange(-12, 13)
TEMPLATE = np.exp(-(AXIS[:, None] ** 2 + AXIS[None, :] ** 2) / (2 * SIGMA**2))
REGION = np.zeros((256, 256), dtype=bool)
REGION[16:-16, 16:-16] = True
PIXEL = (0.8, 0.8)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(0, 20, (256, 256, 40)).astype(np.float32)


def test_white_noise_has_as_many_blobs_as_the_theory_of_random_fields_says(noise):
    """Expected Euler characteristic above u standard deviations (Adler 1981): area L u exp(-u^2/2) / (2 pi)^1.5, of either sign.

    Noise filtered by exp(-r^2 / 2 s^2) has the correlation exp(-r^2 / 4 s^2), so that L = 1 / (2 s^2) per square pixel.
    """
    found = blobs_per_cm2(noise, noise, TEMPLATE, REGION, PIXEL)
    u = 3.2905  # two-sided 99.9 %
    per_pixel = 2 * u * math.exp(-(u**2) / 2) / (2 * math.pi) ** 1.5 / (2 * SIGMA**2)
    assert found.visible == found.relative == pytest.approx(per_pixel * 100 / PIXEL[0] ** 2, rel=0.15)


def test_less_of_the_same_noise_shows_no_blobs_and_is_no_blobbier(noise):
    before = blobs_per_cm2(noise, noise, TEMPLATE, REGION, PIXEL)
    after = blobs_per_cm2(0.4 * noise, noise, TEMPLATE, REGION, PIXEL)
    assert (after.visible, after.relative) == (0, pytest.approx(before.relative, rel=0.01))
    assert blobs_per_cm2(np.zeros_like(noise), noise, TEMPLATE, REGION, PIXEL) == (0, 0)


def test_a_method_that_makes_blobs_is_found_out(noise):
    """It removes 70 % of the noise and draws ten small bright discs into every slice."""
    made = 0.3 * noise.copy()
    disc = insert_image(Insert(40.0, 6.0), PIXEL)
    rng, half = np.random.default_rng(1), len(disc) // 2
    for k in range(noise.shape[2]):
        for x, y in rng.integers(30, 226, (10, 2)):
            made[x - half : x + half + 1, y - half : y + half + 1, k] += disc
    found = blobs_per_cm2(made, noise, TEMPLATE, REGION, PIXEL)
    area = REGION.sum() * PIXEL[0] ** 2 / 100
    assert found.visible * area == pytest.approx(10, rel=0.15)  # some touch
    assert made[REGION].std() < 0.5 * noise[REGION].std()


def test_what_smooths_leaves_blobs_that_stand_out(noise):
    smooth = gaussian_filter(noise, (2, 2, 0))
    before = blobs_per_cm2(noise, noise, TEMPLATE, REGION, PIXEL)
    after = blobs_per_cm2(smooth, noise, TEMPLATE, REGION, PIXEL)
    assert after.visible < before.visible
    assert after.relative > 3 * before.relative


def test_shapes_must_fit(noise):
    with pytest.raises(ValueError, match="of the same shape"):
        blobs_per_cm2(noise[:9], noise, TEMPLATE, REGION, PIXEL)
    with pytest.raises(ValueError, match="with 0 pixels"):
        blobs_per_cm2(noise, noise, TEMPLATE, np.zeros_like(REGION), PIXEL)
