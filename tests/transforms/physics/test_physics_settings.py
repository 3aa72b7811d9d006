import dataclasses

import numpy as np
import pytest

from ct_cncl.transforms.anatomy.regions import noise_power_spectrum
from ct_cncl.transforms.physics import (
    APODISATIONS,
    DoseSettings,
    FanBeam,
    ParallelBeam,
    noise_image,
    phantom_hu,
    relative_incident_photons,
    slice_generator,
    water_cylinder,
)
from ct_cncl.transforms.physics.fbp import apodisation_window

SIZE, PIXEL = 96, 2.0
CYLINDER = phantom_hu(water_cylinder(75.0), (SIZE, SIZE), (PIXEL, PIXEL))
SETTINGS = DoseSettings(dose_fraction=0.5, incident_photons=1e5, views=240)


def noise(settings, count, seed=0):
    return np.array([noise_image(CYLINDER, (PIXEL, PIXEL), settings, slice_generator(seed, n)) for n in range(count)])


def test_geometries_by_name():
    assert SETTINGS.rays((64, 64), (1.0, 1.0)) == ParallelBeam.for_image((64, 64), (1.0, 1.0), 240)
    assert DoseSettings(geometry="mayo").rays((64, 64), (1.0, 1.0)) == FanBeam.mayo()
    assert (DoseSettings().views, DoseSettings(geometry="mayo", views=300).views) == (720, 300)


def test_a_full_bowtie_filter_gives_all_rays_through_its_cylinder_the_same_quanta():
    beam = ParallelBeam(3, 81, 2.0)
    settings = DoseSettings(bowtie_mm=150.0, bowtie_strength=1.0)
    p = 2 * np.sqrt(np.maximum(75.0**2 - beam.positions_mm**2, 0)) * settings.mu_water_per_mm
    arriving = relative_incident_photons(np.tile(p, (3, 1)), beam, settings) * np.exp(-p)
    np.testing.assert_allclose(arriving, np.exp(-150 * 0.0192), rtol=1e-9)
    half = relative_incident_photons(np.tile(p, (3, 1)), beam, dataclasses.replace(settings, bowtie_strength=0.5))
    np.testing.assert_allclose(half**2, relative_incident_photons(np.tile(p, (3, 1)), beam, settings))


def test_modulated_current_evens_out_the_views_and_keeps_the_dose():
    p = np.random.default_rng(0).random((50, 20)) + np.linspace(1, 6, 50)[:, None]
    current = relative_incident_photons(p, ParallelBeam(50, 20, 1.0), DoseSettings(current_modulation=0.5))
    assert current.shape == (50, 1)
    assert current.mean() == pytest.approx(1.0)
    assert current[-1, 0] / current[0, 0] == pytest.approx(np.exp((p[-1].max() - p[0].max()) / 2))
    np.testing.assert_array_equal(relative_incident_photons(p, ParallelBeam(50, 20, 1.0), DoseSettings()), [[1.0]])


def test_bowtie_filter_moves_noise_to_the_rim():
    bowtie = dataclasses.replace(SETTINGS, bowtie_mm=150.0, bowtie_strength=1.0)
    x = (np.arange(SIZE) - (SIZE - 1) / 2) * PIXEL
    radius = np.hypot(x[:, None], x)
    middle, rim = radius < 15, (radius > 60) & (radius < 70)
    ratios = [
        np.sqrt((data[:, rim] ** 2).mean() / (data[:, middle] ** 2).mean())
        for data in (noise(SETTINGS, 20), noise(bowtie, 20))
    ]
    assert ratios[0] < 0.75
    assert ratios[1] == pytest.approx(1.0, abs=0.1)  # all rays through the cylinder count the same


def test_electronic_noise_of_100_follows_the_full_formula_in_the_image():
    # 5.6e2 photons of 1e4 reach the middle: 1 + (1 + a)/a Ne/N = 1.9 at a quarter of the dose
    incident_photons, a, variance = 1e4, 0.25, 100.0
    per_quantum = np.exp(150 * SETTINGS.mu_water_per_mm) / incident_photons
    expected = 1 + (1 + a) / a * variance * per_quantum
    plain = dataclasses.replace(SETTINGS, dose_fraction=a, incident_photons=incident_photons)
    x = np.arange(SIZE) - (SIZE - 1) / 2
    middle = np.hypot(x[:, None], x) < 7
    both = noise(dataclasses.replace(plain, electronic_variance=variance), 200)[:, middle]
    ratio = both.var() / noise(plain, 200, seed=1)[:, middle].var()
    assert expected > 1.8
    assert ratio == pytest.approx(expected, rel=0.08)
    assert abs(both.mean()) < 0.1 * both.std()


def expected_noise_power(frequency_x, frequency_y, apodisation):
    """Shape of the noise power in water: f (window * interpolation)^2, with what sampling on pixels folds back.

    Noise of a view is white; the filter's response repeats beyond the channels' Nyquist frequency, linear interpolation
    weakens it with sinc^2, back projection spreads it over the circle of its frequency (1/f), and pixels, here as wide as
    channels, fold what lies beyond their Nyquist frequency.
    """
    total = np.zeros(np.broadcast_shapes(frequency_x.shape, frequency_y.shape))
    for m in (-1, 0, 1):
        for n in (-1, 0, 1):
            cycles = np.hypot(frequency_x + m, frequency_y + n)  # a channel
            baseband = np.abs(cycles - np.round(cycles))
            response = baseband * apodisation_window(2 * baseband, apodisation, 1.0) * np.sinc(cycles) ** 2
            total += response**2 / np.maximum(cycles, 1e-9)
    return total


@pytest.mark.parametrize("apodisation", APODISATIONS)
def test_noise_power_is_ramp_times_squared_window_and_interpolation(apodisation):
    """Middle of water, 0.08 of Nyquist to Nyquist, every filter."""
    settings = dataclasses.replace(SETTINGS, apodisation=apodisation)
    side = 40
    corner = (SIZE - side) // 2
    patches = noise(settings, 200)[:, corner : corner + side, corner : corner + side]
    power = noise_power_spectrum(patches, (PIXEL, PIXEL))
    cycles = np.fft.fftfreq(side)
    theory = expected_noise_power(cycles[:, None], cycles, apodisation)
    ring = np.floor(np.hypot(cycles[:, None], cycles) * side).astype(int)
    expected = np.array([theory[ring == n].mean() for n in range(side // 2)])
    used = slice(2, None)
    assert np.corrcoef(power.radial[used], expected[used])[0, 1] > 0.99
    # Not the shape alone: the ratio is one constant to a few percent.
    strong = expected > 0.2 * expected.max()
    ratio = power.radial[strong] / expected[strong]
    assert ratio.std() / ratio.mean() < 0.05
