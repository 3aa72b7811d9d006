import dataclasses

import numpy as np
import pytest
from physics_analytic import central, ellipse_sinogram, water_cylinder

from ct_cncl.transforms.physics import (
    MU_WATER_PER_MM,
    DoseSettings,
    ParallelBeam,
    added_noise_variance,
    fbp,
    hu_to_attenuation,
    insert_noise,
    noise_image,
    slice_generator,
)

SIZE, PIXEL, RADIUS = 96, 2.0, 75.0
CYLINDER = water_cylinder(SIZE, PIXEL, RADIUS)
CENTRE = central(SIZE, PIXEL, 0.5 * RADIUS)
SETTINGS = DoseSettings(dose_fraction=0.25, incident_photons=1e4, views=120)


def at_dose(fraction, **changes):
    return dataclasses.replace(SETTINGS, dose_fraction=fraction, **changes)


def realizations(settings, count, seed, noise_free=False):
    """(count, pixels) of the noise in the centre of the cylinder."""
    noise = [
        noise_image(CYLINDER, (PIXEL, PIXEL), settings, slice_generator(seed, n), noise_free=noise_free)[CENTRE]
        for n in range(count)
    ]
    return np.array(noise)


def poisson_sinogram(p, fraction, incident_photons, variance, rng):
    """Photon-count simulation: counted photons plus electronic noise, logarithm."""
    counts = rng.poisson(fraction * incident_photons * np.exp(-p)) + rng.normal(0, np.sqrt(variance), p.shape)
    return -np.log(np.maximum(counts, 1) / (fraction * incident_photons))


# The formula ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 0.0620), (0.1, 0.1137)])
def test_full_plus_added_variance_has_the_known_values(fraction, expected):
    options = {"incident_photons": 2e5, "electronic_variance": 100.0}
    full = added_noise_variance(5.0, dose_fraction=1, noise_free=True, **options)
    added = added_noise_variance(5.0, dose_fraction=fraction, **options)
    assert np.sqrt(full + added) == pytest.approx(expected, abs=5e-5)
    assert full + added == pytest.approx(added_noise_variance(5.0, dose_fraction=fraction, noise_free=True, **options))


@pytest.mark.parametrize("variance", [0.0, 100.0])
@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("p", [0.0, 2.0, 4.0])
def test_ray_noise_matches_a_direct_poisson_simulation(p, fraction, variance):
    # 200,000 rays: standard error of a variance 0.3 %; p up to 4 leaves 366 photons: the logarithm is nearly linear
    rng = np.random.default_rng(0)
    rays = np.full(200_000, p)
    full = poisson_sinogram(rays, 1.0, 2e5, variance, rng)
    options = {"dose_fraction": fraction, "incident_photons": 2e5, "electronic_variance": variance}
    inserted = full + rng.standard_normal(full.shape) * np.sqrt(added_noise_variance(rays, **options))
    direct = poisson_sinogram(rays, fraction, 2e5, variance, rng)
    assert inserted.var() / direct.var() == pytest.approx(1, abs=0.02)
    assert direct.var() == pytest.approx(added_noise_variance(p, noise_free=True, **options), rel=0.02)


def test_full_dose_adds_exactly_nothing():
    assert (
        added_noise_variance(np.linspace(0, 12, 50), dose_fraction=1, incident_photons=1e5, electronic_variance=100)
        == 0
    ).all()
    noise = noise_image(CYLINDER, (PIXEL, PIXEL), at_dose(1.0), np.random.default_rng(0))
    assert (noise == 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0001, 25, np.nan])
def test_dose_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match=r"Expected a dose fraction .* but got .*0\.25, not 25"):
        added_noise_variance(1.0, dose_fraction=fraction, incident_photons=1e5)
    with pytest.raises(ValueError, match="Expected a dose fraction"):
        DoseSettings(dose_fraction=fraction)


def test_attenuation_of_air_water_and_below_air():
    got = hu_to_attenuation(np.array([-3024, -1000, 0, 1000], dtype=np.int16))
    np.testing.assert_allclose(got, [0, 0, MU_WATER_PER_MM, 2 * MU_WATER_PER_MM], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "bad",
    [
        {"incident_photons": 0.0},
        {"electronic_variance": -1.0},
        {"apodisation": "x"},
        {"cutoff": 0.0},
        {"views": 0},
        {"mu_water_per_mm": 0.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="Expected"):
        DoseSettings(**bad)


# Statistics in a water cylinder --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_added_variance_scales_with_the_missing_dose(fraction):
    # 200 realizations x 1104 pixels: standard error of the ratio of variances about 0.7 %, of the mean below 0.02 HU
    full = realizations(at_dose(1.0), 200, seed=1, noise_free=True)
    added = realizations(at_dose(fraction), 200, seed=2)
    assert added.var() / full.var() == pytest.approx((1 - fraction) / fraction, rel=0.03)
    assert abs(added.mean()) < 0.1


def test_electronic_noise_follows_the_full_formula():
    # p = 2.88 in the middle: 561 photons of 1e4, so that Ne = 1000 counts
    options = {"electronic_variance": 1000.0}
    p = 2 * RADIUS * MU_WATER_PER_MM
    expected = added_noise_variance(p, dose_fraction=0.25, incident_photons=1e4, **options)
    expected /= added_noise_variance(p, dose_fraction=0.25, incident_photons=1e4)
    middle = central(SIZE, PIXEL, 15.0)[CENTRE]  # towards the rim p is smaller: compare the middle alone
    both = realizations(at_dose(0.25, **options), 200, seed=3)[:, middle].var()
    assert both / realizations(SETTINGS, 200, seed=4)[:, middle].var() == pytest.approx(expected, rel=0.08)


def test_absolute_noise_in_the_centre_is_the_analytic_value():
    """Central pixel, odd sizes: var = pi^2 / (12 M d^2) var(p) for the bare ramp (Kak and Slaney, section 5.2)."""
    size, pixel, views = 67, 2.0, 60
    geometry = ParallelBeam.for_image((size, size), (pixel, pixel), views)
    assert geometry.channels % 2 == 1  # the centre lies on a channel in each view: no interpolation
    cylinder = water_cylinder(size, pixel, 50.0)
    settings = DoseSettings(dose_fraction=0.5, incident_photons=1e5, apodisation="ram-lak", views=views)
    values = [
        noise_image(cylinder, (pixel, pixel), settings, slice_generator(5, n), noise_free=True)[33, 33]
        for n in range(800)
    ]
    variance = np.exp(100.0 * MU_WATER_PER_MM) / (0.5 * 1e5)
    expected = 1000 / MU_WATER_PER_MM * np.sqrt(np.pi**2 / (12 * views * pixel**2) * variance)
    assert np.std(values) == pytest.approx(expected, rel=0.07)  # standard error 2.5 %


@pytest.mark.parametrize("variance", [0.0, 100.0])
def test_insertion_into_a_noisy_scan_agrees_with_the_direct_route(variance):
    """Poisson and logarithm at quarter dose, against a full-dose scan plus insertion: same filter, within 4 %."""
    rng = np.random.default_rng(6)
    geometry = ParallelBeam.for_image((SIZE, SIZE), (PIXEL, PIXEL), SETTINGS.views)
    p = ellipse_sinogram(geometry, [(0, 0, RADIUS, RADIUS, 0, MU_WATER_PER_MM)])
    settings = at_dose(0.25, incident_photons=1e5, electronic_variance=variance)

    def scan(fraction):
        sinogram = poisson_sinogram(p, fraction, settings.incident_photons, variance, rng)
        return fbp(sinogram, geometry, (SIZE, SIZE), (PIXEL, PIXEL)) / MU_WATER_PER_MM * 1000 - 1000

    direct = np.array([scan(0.25)[CENTRE] for _ in range(60)])
    inserted = np.array(
        [insert_noise(scan(1.0)[..., None], (PIXEL, PIXEL), settings, seed=n)[CENTRE, 0] for n in range(60)]
    )
    assert inserted.std(axis=0).mean() == pytest.approx(direct.std(axis=0).mean(), rel=0.04)
    assert abs(inserted.mean() - direct.mean()) < 0.3


def test_noise_is_larger_along_the_long_axis():
    """Rays along the long axis of an ellipse carry most noise: streaks, i.e. less change along that axis."""
    x = np.linspace(-1, 1, SIZE)
    ellipse = np.where((x[:, None] / 0.95) ** 2 + (x[None, :] / 0.35) ** 2 < 1, 0.0, -1000.0)
    noise = noise_image(ellipse, (4.0, 4.0), at_dose(0.25), np.random.default_rng(7))
    inside = (slice(30, 66), slice(38, 58))
    along, across = (np.abs(np.diff(noise[inside], axis=axis)).mean() for axis in (0, 1))
    assert along < 0.8 * across


# Volumes -------------------------------------------------------------------------------------------------------------


def padded_volume(slices=3, value=-1024):
    x = np.arange(64) - 31.5
    circle = np.hypot(x[:, None], x[None, :]) < 32
    body = np.where(np.hypot(x[:, None], x[None, :]) < 24, 40, -1000)
    return np.repeat(np.where(circle, body, value).astype(np.int16)[..., None], slices, axis=2)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_full_dose_returns_the_input_bit_for_bit(dtype):
    volume = padded_volume().astype(dtype) + np.array(0.1, dtype=dtype)
    result = insert_noise(volume, (1.0, 1.0), at_dose(1.0), seed=0)
    assert result.dtype == volume.dtype
    np.testing.assert_array_equal(result, volume)
    assert result is not volume
    assert not np.shares_memory(result, volume)


@pytest.mark.parametrize("value", [-1024, -2000, -3024])
def test_padding_never_changes_and_everything_else_does(value):
    volume = padded_volume(value=value)
    result = insert_noise(volume, (1.0, 1.0), SETTINGS, seed=0)
    assert result.dtype == np.float32
    padding = volume == value
    assert 0.1 < padding.mean() < 0.3
    np.testing.assert_array_equal(result[padding], value)
    assert (result[~padding] != volume[~padding]).mean() > 0.999
    assert volume.dtype == np.int16
    assert (volume[padding] == value).all()


def test_slices_are_independent_and_do_not_depend_on_what_else_is_simulated():
    volume = padded_volume(4)
    result = insert_noise(volume, (1.0, 1.0), SETTINGS, seed=3)
    np.testing.assert_array_equal(insert_noise(volume[..., :2], (1.0, 1.0), SETTINGS, seed=3), result[..., :2])
    third = noise_image(volume[..., 2], (1.0, 1.0), SETTINGS, slice_generator(3, 2))
    inside = volume[..., 2] > -1024
    np.testing.assert_array_equal((volume[..., 2] + third)[inside], result[..., 2][inside])
    noise = (result - volume)[20:44, 20:44].reshape(-1, 4)
    correlation = np.corrcoef(noise.T)
    assert np.abs(correlation[~np.eye(4, dtype=bool)]).max() < 0.2


def test_seeds_reproduce_and_differ():
    volume = padded_volume(2)
    first = insert_noise(volume, (1.0, 1.0), SETTINGS, seed=0)
    np.testing.assert_array_equal(insert_noise(volume, (1.0, 1.0), SETTINGS, seed=0), first)
    assert (insert_noise(volume, (1.0, 1.0), SETTINGS, seed=1) != first).any()
    with pytest.raises(ValueError, match="seed"):
        insert_noise(volume, (1.0, 1.0), SETTINGS, seed=-1)


def test_a_slice_without_air_is_fine_inside_a_volume_that_has_some():
    volume = np.full((32, 32, 2), 40, dtype=np.int16)
    volume[:4, :, 1] = -1000
    assert np.isfinite(insert_noise(volume, (1.0, 1.0), SETTINGS, seed=0)).all()


def test_progress_is_told_after_each_slice():
    calls = []
    insert_noise(padded_volume(3), (1.0, 1.0), SETTINGS, seed=0, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: np.where(v > 0, np.nan, v), r"Expected finite HU but got \d+ NaN"),
        (lambda v: np.where(v > 0, np.inf, v), "Expected finite HU"),
        (lambda v: v + 1024, r"never below 0\. These look like stored values before rescaling.*RescaleIntercept"),
        (lambda v: v[..., 0], r"Expected HU with axes \(x, y, z\)"),
        (lambda v: v[..., :0], "none of length 0"),
    ],
)
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_what_is_not_hu_is_refused(change, message, fraction):
    with pytest.raises(ValueError, match=message):
        insert_noise(change(padded_volume()), (1.0, 1.0), at_dose(fraction), seed=0)


@pytest.mark.parametrize("pixel_mm", [None, (0.0, 1.0), (1.0, -1.0)])
def test_missing_spacing_is_refused(pixel_mm):
    with pytest.raises(ValueError, match="Expected pixel_mm"):
        insert_noise(padded_volume(), pixel_mm, SETTINGS, seed=0)
    with pytest.raises(ValueError, match="Expected pixel_mm"):
        noise_image(padded_volume()[..., 0], pixel_mm, SETTINGS, np.random.default_rng(0))
