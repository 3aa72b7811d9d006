import numpy as np
import pytest

from ct_cncl.pipeline.metrics import (
    noise_figures,
    noise_power_of_differences,
    noise_power_of_regions,
    nps_distance,
    uniform_patches,
)

PIXEL = (0.7, 0.7)
SIZE = 32


def known_spectrum(shape, sd=12.0):
    """A CT-like spectrum on the DFT's frequencies, |f| exp(-(f/f0)^2), HU^2 mm^2, of noise with that deviation."""
    f = np.hypot(np.fft.fftfreq(shape[0], PIXEL[0])[:, None], np.fft.fftfreq(shape[1], PIXEL[1])[None, :])
    power = (f + 0.02) * np.exp(-((f / 0.35) ** 2))
    return power * sd**2 * PIXEL[0] * PIXEL[1] * power.size / power.sum()


def noise_of(power, seed, count):
    """Realizations (count, x, y) of noise with a power spectrum."""
    white = np.random.default_rng(seed).normal(size=(count, *power.shape))
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power / (PIXEL[0] * PIXEL[1]))).real


def tiles(shape):
    return [(x, y) for x in range(0, shape[0] - SIZE + 1, SIZE) for y in range(0, shape[1] - SIZE + 1, SIZE)]


def expected_radial():
    """The known spectrum's mean over the rings of a patch's DFT, computed apart from the package."""
    f = np.hypot(np.fft.fftfreq(SIZE, PIXEL[0])[:, None], np.fft.fftfreq(SIZE, PIXEL[1])[None, :])
    power = (f + 0.02) * np.exp(-((f / 0.35) ** 2))
    big = known_spectrum((256, 256))
    grid = np.hypot(np.fft.fftfreq(256, PIXEL[0])[:, None], np.fft.fftfreq(256, PIXEL[1])[None, :])
    scale = (big / ((grid + 0.02) * np.exp(-((grid / 0.35) ** 2)))).mean()
    step = 1 / (SIZE * PIXEL[0])
    ring = np.floor(f / step).astype(int)
    return np.array([scale * power[ring == k].mean() for k in range(SIZE // 2)])


def test_spectrum_of_synthetic_noise_is_the_known_one_within_3_percent():
    images = list(noise_of(known_spectrum((256, 256)), seed=0, count=40) + 50)
    power = noise_power_of_regions(images, [tiles((256, 256))] * len(images), pixel_mm=PIXEL, size=SIZE)
    expected = expected_radial()
    inner = slice(3, SIZE // 2)  # below, the plane that is taken off and the Hann window's width decide
    used = expected[inner] > 0.01 * expected.max()
    ratio = power.radial[inner][used] / expected[inner][used]
    assert np.abs(ratio - 1).max() < 0.03, ratio
    # the peak of f exp(-(f/f0)^2), f0 = 0.35: solve 1/(f + 0.02) = 2 f / f0^2
    grid = np.linspace(0.05, 0.6, 10001)
    peak = grid[np.argmax((grid + 0.02) * np.exp(-((grid / 0.35) ** 2)))]
    figures = noise_figures(power, pixel_mm=PIXEL)
    assert figures.peak_per_mm == pytest.approx(peak, abs=0.4 / (SIZE * PIXEL[0]))  # less than half a bin
    assert figures.level_hu == pytest.approx(12.0, rel=0.03)


def test_white_noise_is_flat_and_its_level_its_deviation():
    images = [np.random.default_rng(k).normal(0, 8, (256, 256)) for k in range(10)]
    power = noise_power_of_regions(images, [tiles((256, 256))] * 10, pixel_mm=PIXEL, size=SIZE)
    assert power.radial[3:] == pytest.approx(8**2 * PIXEL[0] * PIXEL[1], rel=0.05)
    assert noise_figures(power, pixel_mm=PIXEL).level_hu == pytest.approx(8, rel=0.02)


def test_differences_leave_the_noise_and_take_away_anatomy():
    noise = noise_of(known_spectrum((128, 128)), seed=1, count=40)
    anatomy = 200 * np.sin(np.arange(128) / 3)[:, None] * np.ones(128)
    pairs = [noise[:20] + anatomy, noise[20:] + anatomy]
    corners = [tiles((128, 128))] * 20
    from_pairs = noise_power_of_differences(*pairs, corners, pixel_mm=PIXEL, size=SIZE)
    alone = noise_power_of_regions(list(noise), corners * 2, pixel_mm=PIXEL, size=SIZE)
    assert nps_distance(from_pairs, alone) < 0.08
    with_anatomy = noise_power_of_regions(list(pairs[0]), corners, pixel_mm=PIXEL, size=SIZE)
    assert nps_distance(with_anatomy, alone) > 1


def test_patches_of_several_slices_are_pooled_and_none_is_an_error():
    images = list(np.random.default_rng(4).normal(40, 10, (3, 96, 96)))
    corners = [uniform_patches(image, size=16, count=4) for image in images]
    corners[1] = []
    found = noise_power_of_regions(images, corners, pixel_mm=PIXEL, size=16)
    alone = noise_power_of_regions(images[::2], corners[::2], pixel_mm=PIXEL, size=16)
    np.testing.assert_array_equal(found.spectrum, alone.spectrum)
    with pytest.raises(ValueError, match="at least one uniform patch"):
        noise_power_of_regions(images, [[], [], []], pixel_mm=PIXEL, size=16)


def test_no_noise_has_no_figures():
    power = noise_power_of_regions([np.zeros((32, 32))], [[(0, 0)]], pixel_mm=PIXEL, size=32)
    with pytest.raises(ValueError, match="is 0"):
        noise_figures(power, pixel_mm=PIXEL)
