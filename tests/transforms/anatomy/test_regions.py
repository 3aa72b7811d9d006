import numpy as np
import pytest

from ct_cncl.transforms.anatomy.regions import (
    local_std,
    noise_level,
    noise_power_spectrum,
    padding_mask,
    soft_tissue_windows,
)

SIZE = 64
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 31.5, np.arange(SIZE) - 31.5, indexing="ij"))


def slice_in_circle(padding, seed=0):
    """Noisy air and water inside the scanner's circle, a constant outside."""
    rng = np.random.default_rng(seed)
    inside = np.where(RADIUS < 20, 0, -1000) + rng.normal(0, 10, RADIUS.shape).round()
    return np.where(RADIUS < 32, inside, padding).astype(np.int16)


# Padding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1000, -1024, -1500, -2000, -3024])
def test_constant_corners_are_padding(value):
    hu = slice_in_circle(value)
    np.testing.assert_array_equal(padding_mask(hu)[RADIUS < 31.5], False)
    np.testing.assert_array_equal(padding_mask(hu)[RADIUS >= 32], True)


def test_measured_air_in_the_corners_is_no_padding():
    hu = np.random.default_rng(0).normal(-1000, 10, (SIZE, SIZE))
    assert not padding_mask(hu).any()
    clipped = np.maximum(np.random.default_rng(0).normal(-1020, 10, (SIZE, SIZE)), -1024)  # a third at the limit
    assert not padding_mask(clipped).any()


def test_air_of_the_padding_value_inside_the_circle_stays():
    hu = slice_in_circle(-1024)
    hu[30:34, 2:6] = -1024
    assert not padding_mask(hu)[30:34, 2:6].any()


def test_constant_corners_of_tissue_are_no_padding():
    assert not padding_mask(np.full((32, 32), 40)).any()
    assert not padding_mask(slice_in_circle(-900)).any()


def test_each_slice_of_a_volume_has_its_own_rule():
    plain = np.random.default_rng(1).normal(-1000, 10, (SIZE, SIZE)).round()
    volume = np.stack([slice_in_circle(-1024), plain, slice_in_circle(-2000)], axis=2)
    mask = padding_mask(volume)
    for z in range(3):
        np.testing.assert_array_equal(mask[..., z], padding_mask(volume[..., z]))
    assert mask[0, 0].tolist() == [True, False, True]


def test_padding_needs_two_or_three_axes():
    with pytest.raises(ValueError, match="Expected a slice"):
        padding_mask(np.zeros(4))


# Local deviation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [3, 9, 15])
def test_local_std_equals_the_direct_calculation(window):
    image = np.random.default_rng(0).normal(1000, 5, (40, 30))
    mean, deviation = local_std(image, window)
    mirrored = np.pad(image, window // 2, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(mirrored, (window, window))
    np.testing.assert_allclose(mean, views.mean(axis=(2, 3)), rtol=1e-10)
    np.testing.assert_allclose(deviation, views.std(axis=(2, 3)), rtol=1e-8)


@pytest.mark.parametrize("window", [1, 4, 31])
def test_bad_windows_are_refused(window):
    with pytest.raises(ValueError, match="Expected an odd window"):
        local_std(np.zeros((30, 40)), window)


# Soft tissue and its noise -------------------------------------------------------------------------------------------


def test_windows_keep_away_from_air_bone_and_the_border():
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[4:60, 4:60] = 50
    hu[44:52, 44:52] = 900
    windows = soft_tissue_windows(hu)
    assert windows.any()
    for i, j in np.argwhere(windows):
        assert set(np.unique(hu[i - 4 : i + 5, j - 4 : j + 5])) == {50.0}
    assert not soft_tissue_windows(np.full((SIZE, SIZE), 50.0))[:5].any()


def test_choice_of_windows_does_not_depend_on_the_noise():
    rng = np.random.default_rng(0)
    clean = np.where(RADIUS < 28, 50.0, -1000.0)
    quiet, loud = (soft_tissue_windows(clean + rng.normal(0, sd, clean.shape)) for sd in (1, 60))
    assert (quiet != loud).mean() < 0.01


def test_noise_level_follows_the_noise_and_ignores_structure():
    rng = np.random.default_rng(0)
    clean = np.where(RADIUS < 28, 50.0, -1000.0)
    clean[30:34, 20:44] = 120  # a vessel
    levels = [noise_level((clean + rng.normal(0, sd, clean.shape))[..., None]) for sd in (5, 10, 20)]
    np.testing.assert_allclose(levels, [5, 10, 20], rtol=0.12)


def test_noise_level_without_soft_tissue_is_refused():
    with pytest.raises(ValueError, match=r"Expected 50 or more windows .* but got 0"):
        noise_level(np.full((SIZE, SIZE, 2), -1000.0))


# Noise power ---------------------------------------------------------------------------------------------------------


def test_white_noise_has_a_flat_spectrum_of_the_right_size():
    patches = np.random.default_rng(0).normal(40, 8, (400, 32, 32))
    power = noise_power_spectrum(patches, (0.7, 0.7))
    np.testing.assert_allclose(power.radial[3:], 8**2 * 0.7**2, rtol=0.05)
    assert power.frequency[-1] < 0.5 / 0.7


def test_power_adds_up_to_the_variance_for_non_square_pixels():
    pixel_mm = (1.1, 0.6)
    patches = np.random.default_rng(0).normal(0, 8, (400, 32, 32))
    power = noise_power_spectrum(patches, pixel_mm)
    cell = 1 / (32 * pixel_mm[0]) / (32 * pixel_mm[1])
    assert power.spectrum.sum() * cell == pytest.approx(64, rel=0.02)


def test_mean_frequency_of_a_known_spectrum():
    """Noise of one ring of frequencies has that mean frequency, in 1/mm, whatever the pixel size."""
    rng = np.random.default_rng(0)
    for pixel_mm in ((0.5, 0.5), (1.0, 1.0), (0.6, 1.2)):
        radius = np.hypot(np.fft.fftfreq(512, pixel_mm[0])[:, None], np.fft.fftfreq(512, pixel_mm[1])[None, :])
        ring = np.exp(-(((radius - 0.25) / 0.02) ** 2))
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(0, 10, (512, 512))) * ring).real
        patches = noise.reshape(16, 32, 16, 32).swapaxes(1, 2).reshape(256, 32, 32)
        assert noise_power_spectrum(patches, pixel_mm).mean_frequency == pytest.approx(0.25, rel=0.03)


def test_a_tilted_plane_is_no_noise():
    patches = np.tile(np.add.outer(np.arange(32.0), 3 * np.arange(32.0)), (3, 1, 1))
    assert np.abs(noise_power_spectrum(patches, (1.0, 1.0)).spectrum).max() < 1e-12


@pytest.mark.parametrize("shape", [(32, 32), (0, 32, 32), (2, 32, 30), (2, 4, 4)])
def test_bad_patches_are_refused(shape):
    with pytest.raises(ValueError, match="Expected patches"):
        noise_power_spectrum(np.zeros(shape), (1.0, 1.0))
