import numpy as np
import pytest

from ct_cncl.pipeline.metrics.nps_distance import nps_distance, patches_at, uniform_patches
from ct_cncl.transforms.anatomy.regions import noise_power_spectrum


def spectrum(patches):
    return noise_power_spectrum(patches, (0.7, 0.7))


def noise(seed=0, count=200, size=16, scale=10.0):
    return scale * np.random.default_rng(seed).normal(size=(count, size, size))


def smoothed(patches):
    return (patches + np.roll(patches, 1, 1) + np.roll(patches, 1, 2) + np.roll(patches, (1, 1), (1, 2))) / 2


def test_distance_of_the_same_noise_is_zero_and_of_none_is_one():
    assert nps_distance(spectrum(noise()), spectrum(noise())) == 0
    assert nps_distance(spectrum(0 * noise()), spectrum(noise())) == 1


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.5])
def test_scaled_noise_is_apart_by_its_power(scale):
    assert nps_distance(spectrum(scale * noise()), spectrum(noise())) == pytest.approx(abs(1 - scale**2), rel=1e-9)


def test_other_realizations_are_close_and_another_spectrum_of_the_same_power_is_far():
    """White noise and its 2 x 2 mean, scaled to the same variance: |1 - 4 cos^2 cos^2| of the rings' means, by analysis."""
    white = spectrum(noise(0, 2000))
    assert nps_distance(spectrum(noise(1, 2000)), white) < 0.03
    f = np.fft.fftfreq(16)
    shape = 4 * np.cos(np.pi * f[:, None]) ** 2 * np.cos(np.pi * f[None, :]) ** 2
    radius = np.hypot(f[:, None], f[None, :]) * 16
    rings = [np.abs(1 - shape[(radius >= k) & (radius < k + 1)].mean()) * (k + 0.5) for k in range(8)]
    expected = sum(rings) / sum(k + 0.5 for k in range(8))
    assert expected > 0.4
    assert nps_distance(spectrum(smoothed(noise(2, 2000))), white) == pytest.approx(expected, abs=0.06)


def test_eight_patches_of_the_same_noise_are_close():
    """What one slice has. Frequency by frequency the two realizations would be 40 % apart."""
    first, second = (noise_power_spectrum(noise(seed, 8, 24), (0.7, 0.7)) for seed in (1, 2))
    apart = np.abs(first.spectrum - second.spectrum).sum() / second.spectrum.sum()
    assert apart > 0.35
    assert nps_distance(first, second) < 0.15


def test_spectra_of_other_patches_and_a_reference_without_noise_are_refused():
    with pytest.raises(ValueError, match="the same patch size"):
        nps_distance(spectrum(noise(size=8)), spectrum(noise()))
    with pytest.raises(ValueError, match="no noise texture"):
        nps_distance(spectrum(noise()), spectrum(0 * noise()))


def slice_with_vessels():
    rng = np.random.default_rng(0)
    hu = np.full((128, 128), -1000.0)
    hu[10:118, 10:118] = 50.0
    hu[10:118, 60:118] += 30.0 * (rng.random((108, 58)) > 0.9)  # busy tissue
    hu[20:40, 20:40] = 700.0  # bone
    return hu + rng.normal(0, 5, hu.shape)


def test_patches_lie_in_calm_soft_tissue_and_apart():
    hu = slice_with_vessels()
    corners = uniform_patches(hu, size=16, count=4)
    assert len(corners) == 4
    for patch in patches_at(hu, corners, size=16):
        assert patch.shape == (16, 16)
        assert patch.std() < 6
        assert abs(patch.mean() - 50) < 3
    for k, (x, y) in enumerate(corners):
        assert all(max(abs(x - a), abs(y - b)) >= 16 for a, b in corners[:k])


def test_calmest_first_and_no_more_than_there_is_room_for():
    corners = uniform_patches(slice_with_vessels(), size=16, count=1000)
    spread = [patch.std() for patch in patches_at(slice_with_vessels(), corners, size=16)]
    assert 12 < len(corners) < 49
    assert np.mean(spread[:5]) < np.mean(spread[-5:])


def test_no_soft_tissue_no_patches():
    assert uniform_patches(np.full((64, 64), -1000.0)) == []
    assert uniform_patches(np.zeros((20, 20))) == []  # smaller than a patch


def test_odd_size():
    with pytest.raises(ValueError, match="even size"):
        uniform_patches(np.zeros((64, 64)), size=15)
