import dataclasses

import numpy as np
import pytest

from ct_cncl.transforms.physics import (
    DoseSettings,
    Ellipse,
    added_noise_variance,
    insert_noise,
    line_integrals_of_counts,
    noise_image,
    phantom_hu,
    slice_generator,
    smooth_photon_starvation,
    water_cylinder,
)
from ct_cncl.transforms.physics.counts import added_line_integrals, measured_counts

PHOTON_COUNTS = DoseSettings(
    dose_fraction=0.25, incident_photons=1e5, views=120, route="photon_counts", starvation_counts=0.0
)
PIXEL = (2.0, 2.0)


def test_smoothing_takes_place_where_the_average_is_low_and_only_there():
    counts = np.random.default_rng(0).poisson(50.0, (40, 60)).astype(float)
    counts[:, 30:] += 1000.0
    got = smooth_photon_starvation(counts, threshold=300.0, channels=5, views=3)  # 50 is below half of it, 1050 above
    np.testing.assert_array_equal(got[:, 33:], counts[:, 33:])
    expected = np.mean([counts[9 + i, 8 + j] for i in range(3) for j in range(5)])
    assert got[10, 10] == pytest.approx(expected)
    assert got[:, 5:25].mean() == pytest.approx(counts[:, 5:25].mean(), rel=0.01)  # no bias
    assert got[5:35, 5:25].std() == pytest.approx(counts[:, 5:25].std() / np.sqrt(15), rel=0.25)


def test_averaging_before_the_logarithm_lowers_a_ridge():
    p = np.array([[5.0, 5.0, 7.0, 5.0, 5.0]])
    settings = DoseSettings(starvation_counts=1e9, starvation_channels=3, starvation_views=1)
    got = line_integrals_of_counts(1e5 * np.exp(-p), 1e5, settings)
    assert got[0, 2] == pytest.approx(-np.log((2 * np.exp(-5) + np.exp(-7)) / 3))
    assert got[0, 2] < 5.5


def test_floor_cuts_off_the_largest_line_integrals():
    got = line_integrals_of_counts(
        np.array([-3.0, 0.5, 50.0]), 100.0, DoseSettings(starvation_counts=0, floor_counts=2.0)
    )
    np.testing.assert_allclose(got, np.log([50.0, 50.0, 2.0]))


@pytest.mark.parametrize("electronic", [0.0, 400.0])
@pytest.mark.parametrize("fraction", [0.5, 0.1])
def test_thinned_counts_have_the_variance_of_the_formula_and_no_bias(fraction, electronic):
    # 200,000 rays, 1,000 photons and more at the low dose: the logarithm is linear to 1 %
    settings = dataclasses.replace(
        PHOTON_COUNTS, dose_fraction=fraction, incident_photons=2e5, electronic_variance=electronic
    )
    p = np.full((200, 1000), 3.0)
    added = added_line_integrals(p, np.full((1, 1), 2e5), settings, np.random.default_rng(0))
    expected = added_noise_variance(3.0, dose_fraction=fraction, incident_photons=2e5, electronic_variance=electronic)
    assert added.var() == pytest.approx(expected, rel=0.02)
    assert abs(added.mean()) < expected  # the bias of the logarithm is about half of the variance


def test_counts_behind_an_object():
    counts = measured_counts(np.full((200, 1000), 2.0), np.full((1, 1), 1e4), 900.0, np.random.default_rng(0))
    mean = 1e4 * np.exp(-2)
    assert counts.mean() == pytest.approx(mean, rel=1e-3)
    assert counts.var() == pytest.approx(mean + 900.0, rel=0.01)


def test_full_dose_is_the_identity_whatever_the_scanner_does():
    hu = phantom_hu(water_cylinder(60.0), (64, 64), PIXEL)[..., None]
    settings = dataclasses.replace(PHOTON_COUNTS, dose_fraction=1.0, starvation_counts=600.0, electronic_variance=100.0)
    np.testing.assert_array_equal(insert_noise(hu, PIXEL, settings, 0), hu)
    p = np.random.default_rng(0).random((30, 40)) * 8
    added = added_line_integrals(p, np.full((1, 1), 1e4), settings, np.random.default_rng(1))
    np.testing.assert_array_equal(added, 0.0)


def test_direct_route_and_formula_agree_in_water():
    hu = phantom_hu(water_cylinder(75.0), (96, 96), PIXEL)
    formula = dataclasses.replace(PHOTON_COUNTS, route="formula")
    centre = (slice(30, 66), slice(30, 66))
    noise = [
        np.array([noise_image(hu, PIXEL, settings, slice_generator(3, n))[centre] for n in range(60)])
        for settings in (PHOTON_COUNTS, formula)
    ]
    assert noise[0].std() == pytest.approx(noise[1].std(), rel=0.04)
    assert abs(noise[0].mean() - noise[1].mean()) < 0.3


SHOULDERS = [Ellipse(0, 0, 200, 100, 1000.0), Ellipse(-150, 0, 9, 9, 600.0), Ellipse(150, 0, 9, 9, 600.0)]


def low_frequency_power(settings, hu, pixel, count):
    """Sum of the power below 0.025 cycles/pixel, and the mean image, over ``count`` realizations."""
    size = hu.shape[0]
    noise = np.array([noise_image(hu, pixel, settings, slice_generator(1, n)) for n in range(count)])
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = (np.abs(np.fft.fft2(noise * window)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    return power[frequency < 0.025].sum(), power.sum(), noise.mean(axis=0)


def test_starved_shoulders_get_dark_bands_and_low_frequencies():
    """2 to 20 times the formula's power below 0.025 cycles/pixel; without the scanner's treatment no more than its own."""
    size, pixel = 192, (2.5, 2.5)
    hu = phantom_hu(SHOULDERS, (size, size), pixel, samples=4)
    settings = DoseSettings(incident_photons=2e6, views=270, electronic_variance=25.0)
    formula, formula_total, _ = low_frequency_power(settings, hu, pixel, 12)
    untreated = dataclasses.replace(settings, route="photon_counts", starvation_counts=0.0)
    plain, plain_total, _ = low_frequency_power(untreated, hu, pixel, 12)
    assert plain == pytest.approx(formula, rel=0.25)  # few frequencies: 12 realizations leave 10 %
    assert plain_total == pytest.approx(formula_total, rel=0.05)
    treated, _, mean = low_frequency_power(
        dataclasses.replace(untreated, starvation_counts=600.0, starvation_channels=5), hu, pixel, 12
    )
    assert 2 < treated / formula < 20
    # Dark bands with lighter rims along the long axis: x runs along it, bands lie 17 to 35 mm from it, rims beyond 42 mm.
    profile = mean[size // 2 - 30 : size // 2 + 30].mean(axis=0)
    profile = (profile + profile[::-1])[size // 2 :] / 2
    assert profile[7:14].mean() < -0.7
    assert profile[17:20].max() > 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"route": "other"},
        {"starvation_counts": -1.0},
        {"floor_counts": 0.0},
        {"starvation_channels": 4},
        {"starvation_views": 0},
        {"geometry": "cone"},
        {"bowtie_mm": 0.0},
        {"bowtie_strength": 1.1},
        {"current_modulation": -0.1},
    ],
)
def test_impossible_scanners_are_refused(bad):
    with pytest.raises(ValueError, match="Expected"):
        DoseSettings(**bad)
