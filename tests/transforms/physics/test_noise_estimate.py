import math

import numpy as np
import pytest

from ct_cncl.transforms.physics import (
    DoseSettings,
    NoNoiseError,
    SpectrumError,
    insert_noise,
    measure_noise,
    phantom_hu,
    read_spectrum,
    water_cylinder,
)
from ct_cncl.transforms.physics.kernel import sampling_response
from ct_cncl.transforms.physics.noise_estimate import plane
from ct_cncl.transforms.physics.patch_spectra import cut, expected_ramp, periodograms, rings, tissue_corners

PIXEL = (0.9, 0.9)
SIZE = 256
WATER = phantom_hu(water_cylinder(100.0), (SIZE, SIZE), PIXEL)
FREQUENCY = np.arange(65) / 64
GAINS = {
    "smooth": np.exp(-((FREQUENCY / 0.3) ** 2)),
    "edge-enhancing": 1 + 1.5 * np.exp(-(((FREQUENCY - 0.35) / 0.12) ** 2)),
}


def shaped(gain, **changes):
    return DoseSettings(
        dose_fraction=1.0, incident_photons=5e4, kernel_gain=tuple(gain), kernel_gain_step_per_mm=1 / 64, **changes
    )


def scan(gain, clean=WATER, slices=2):
    volume = np.repeat(clean[..., None], slices, axis=2)
    return np.rint(insert_noise(volume, PIXEL, shaped(gain), 3, noise_free=True))


def with_vessels(hu):
    """Edges of all sizes, in part of the body only, as the kernel shows them."""
    rng = np.random.default_rng(1)
    x, y = np.mgrid[-SIZE / 2 : SIZE / 2, -SIZE / 2 : SIZE / 2]
    result = hu.copy()
    for _ in range(60):
        at, radius = rng.uniform(-70, 70, 2) - [25, 0], rng.uniform(1.5, 6)
        result += 60 / (1 + np.exp((np.hypot(x - at[0], y - at[1]) - radius) / 0.8)) * (np.hypot(x, y) < 100)
    return result


def true_figures(noise, found):
    size = found.patch_size
    corners = tissue_corners(WATER, size, spacing=size // 4)
    power = periodograms(np.concatenate([cut(noise[..., z], corners, size) for z in range(noise.shape[2])]), PIXEL)
    ring = rings(size, PIXEL)
    total = ring.count * (power.mean(axis=0) - PIXEL[0] * PIXEL[1] / 12)
    return math.sqrt(total.sum() / (size**2 * PIXEL[0] * PIXEL[1])), (total * ring.frequency).sum() / total.sum()


@pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS)
def test_known_noise_of_any_kernel_is_found_in_water(gain):
    volume = scan(gain)
    found = measure_noise(volume, PIXEL)
    level, frequency = true_figures(volume - WATER[..., None], found)
    assert found.level_hu == pytest.approx(level, rel=0.03)
    assert found.mean_frequency_per_mm == pytest.approx(frequency, rel=0.03)
    assert found.anatomy_share < 0.05


def test_anatomy_is_taken_out_and_its_share_stated():
    gain = np.exp(-((FREQUENCY / 0.45) ** 2))
    clean = with_vessels(WATER)
    volume = scan(gain, clean)
    found = measure_noise(volume, PIXEL)
    level, frequency = true_figures(volume - clean[..., None], found)
    mixed, _ = true_figures(volume, found)
    assert mixed > 1.1 * level  # what would come out with the anatomy
    assert found.level_hu == pytest.approx(level, rel=0.05)
    assert found.mean_frequency_per_mm == pytest.approx(frequency, rel=0.05)
    assert found.anatomy_share > 0.02


def test_the_spectrum_holds_the_level():
    found = measure_noise(scan(GAINS["edge-enhancing"]), PIXEL)
    frequency, area = plane(PIXEL)
    np.testing.assert_allclose(frequency, found.frequency_per_mm)
    assert math.sqrt((area * found.power).sum()) == pytest.approx(found.level_hu, rel=1e-6)


def test_what_the_window_makes_of_ramp_noise_is_known():
    rng = np.random.default_rng(0)
    radius = np.hypot(np.fft.fftfreq(512, 0.9)[:, None], np.fft.fftfreq(512, 0.9))
    white = rng.standard_normal((8, 512, 512))
    noise = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(radius / 0.81)).real
    patches = noise.reshape(8, 16, 32, 16, 32).swapaxes(2, 3).reshape(-1, 32, 32)
    np.testing.assert_allclose(periodograms(patches, PIXEL).mean(axis=0) / expected_ramp(32, PIXEL), 1, atol=0.06)


def test_a_flat_gain_gives_the_ramp_and_its_level_in_closed_form():
    """``S = pi d / M |f| (1000 / mu)^2 e^p / N0`` in the middle of water."""
    settings = shaped([1.0, 1.0])
    low = insert_noise(np.repeat(WATER[..., None], 6, axis=2), PIXEL, settings, 1, noise_free=True)
    corners = np.array([[112, 112], [96, 112], [128, 112], [112, 96], [112, 128]])
    power = periodograms(np.concatenate([cut(low[..., z] - WATER, corners, 32) for z in range(6)]), PIXEL).mean(axis=0)
    photons = 5e4 * math.exp(-200 * settings.mu_water_per_mm)
    expected = math.pi * 0.9 / 720 * (1000 / settings.mu_water_per_mm) ** 2 / photons * expected_ramp(32, PIXEL)
    used = rings(32, PIXEL).frequency < 0.5 / 0.9
    assert np.mean(power[used][2:] / expected[used][2:]) == pytest.approx(1, abs=0.05)
    assert sampling_response(PIXEL, 0.45, 0.0)[1][0] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (np.random.default_rng(0).normal(-800, 30, (96, 96, 1)), "no uniform soft tissue"),
        (np.random.default_rng(0).normal(-5, 10, (16, 16, 1)), "no uniform soft tissue"),
        (WATER[..., None], "no noise in the soft tissue"),
    ],
    ids=["lung", "tiny", "noise-free"],
)
def test_nothing_to_measure_is_one_line(hu, reason):
    with pytest.raises(NoNoiseError, match=reason):
        measure_noise(hu, PIXEL)


def test_64_pixels_are_enough():
    small = np.random.default_rng(0).normal(0, 10, (64, 64))
    assert measure_noise(small, PIXEL).level_hu == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f,p\n0,1\n", "Expected the columns frequency_per_mm"),
        ("frequency_per_mm,power_1/cm\n0,1\n", "State the units"),
        ("frequency_per_mm,power_hu2_mm2\n0,1\n0.1,2\n", "5 or more rising"),
        ("frequency_per_mm,power_hu2_mm2\n" + "".join(f"{k},100\n" for k in range(9)), "Are they in 1/cm"),
        ("frequency_per_mm,power_hu2_mm2\n" + "".join(f"{k / 9},1e9\n" for k in range(9)), "HU\\^2 mm\\^2"),
        ("frequency_per_mm,power_hu2_mm2\n0,x\n", "two numbers a line"),
    ],
)
def test_a_spectrum_file_of_other_units_is_one_line(tmp_path, text, message):
    path = tmp_path / "nps.csv"
    path.write_text(text)
    with pytest.raises(SpectrumError, match=message):
        read_spectrum(path)


def test_a_spectrum_in_lines_per_cm_is_the_same(tmp_path):
    both = []
    for unit, scale in (("mm", 1), ("cm", 10)):
        path = tmp_path / f"{unit}.csv"
        lines = [f"{k / 10 * scale},{100 * k}" for k in range(8)]
        path.write_text("\n".join([f"frequency_per_{unit},power_hu2_mm2", *lines]))
        both.append(read_spectrum(path).frequency_per_mm)
    np.testing.assert_allclose(*both)
