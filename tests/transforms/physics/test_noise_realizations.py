import dataclasses

import numpy as np
import pytest
import torch

from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.noise_realizations import (
    check_dose_range,
    cut_off,
    dose_between,
    noise_factor,
    noise_realization,
)

SIZE, PIXEL = 64, (4.0, 4.0)
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 31.5, np.arange(SIZE) - 31.5, indexing="ij"))
SETTINGS = DoseSettings(incident_photons=3e4, views=90)
WATER = np.where(RADIUS < 22, 0.0, -1000.0)[..., None].repeat(2, axis=2)
CENTRE = RADIUS < 8


def at(fraction, **changes):
    return dataclasses.replace(SETTINGS, dose_fraction=fraction, **changes)


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.25, 0.05])
def test_scaled_unit_noise_is_the_noise_of_the_full_physics(fraction):
    """The same deviates: equal voxel by voxel, not only in level."""
    unit = noise_realization(WATER, PIXEL, SETTINGS, seed=3)
    low = insert_noise(WATER, PIXEL, at(fraction), seed=3)
    np.testing.assert_allclose(WATER + noise_factor(fraction) * unit, low, atol=2e-3 * unit.std())


def test_unit_noise_is_the_noise_of_full_dose():
    """Against the noise of a full-dose scan of a noise-free object, from the same deviates."""
    full = insert_noise(WATER, PIXEL, at(1.0), seed=3, noise_free=True) - WATER
    np.testing.assert_allclose(noise_realization(WATER, PIXEL, SETTINGS, seed=3), full, atol=2e-3 * full.std())


@pytest.mark.parametrize("change", [{"dose_fraction": 0.1}, {"electronic_variance": 900.0}, {"route": "photon_counts"}])
def test_dose_electronics_and_route_play_no_part(change):
    expected = noise_realization(WATER, PIXEL, SETTINGS, seed=1)
    changed = dataclasses.replace(SETTINGS, **change)
    np.testing.assert_array_equal(noise_realization(WATER, PIXEL, changed, seed=1), expected)


def test_the_direct_route_is_the_full_physics_at_its_dose():
    unit = noise_realization(WATER, PIXEL, SETTINGS, seed=3, counts_at_dose=0.25)
    low = insert_noise(WATER, PIXEL, at(0.25, route="photon_counts", electronic_variance=100.0), seed=3)
    np.testing.assert_allclose(WATER + noise_factor(0.25) * unit, low, atol=2e-3 * unit.std())


def test_the_direct_route_has_the_formulas_level_where_quanta_suffice_and_streaks_where_they_do_not():
    """Behind two dense shoulders a tenth of the photons is left: more noise there than the formula says, along the line."""
    many = at(0.5, incident_photons=3e5)
    spread = [
        noise_realization(WATER, PIXEL, many, seed=3, counts_at_dose=dose)[CENTRE].std() for dose in (None, 0.5, 0.25)
    ]
    assert spread[1:] == pytest.approx([spread[0]] * 2, rel=0.15)  # other deviates of 2 x 200 pixels
    x, y = np.meshgrid(np.arange(SIZE) - 31.5, np.arange(SIZE) - 31.5, indexing="ij")
    shoulders = WATER.copy()
    shoulders[np.hypot(np.abs(x) - 14, y) < 6] = 3000.0
    between = (np.abs(x) < 6) & (np.abs(y) < 3)
    few = at(0.5, incident_photons=2e5)
    formula, direct = (
        noise_realization(shoulders, PIXEL, few, seed=3, counts_at_dose=dose)[between] for dose in (None, 0.25)
    )
    rough = noise_realization(
        shoulders, PIXEL, dataclasses.replace(few, starvation_counts=0.0), seed=3, counts_at_dose=0.25
    )[between]
    assert direct.std() != pytest.approx(formula.std(), rel=0.2)  # electronic noise and smoothing of what is starved
    assert direct.std() < rough.std()


@pytest.mark.parametrize("dose", [0.0, 1.0, -1.0])
def test_the_direct_route_needs_a_lower_dose(dose):
    with pytest.raises(ValueError, match="above 0 and below 1 for photon-count simulation"):
        noise_realization(WATER, PIXEL, SETTINGS, seed=3, counts_at_dose=dose)


def test_padding_has_no_noise():
    hu = WATER.copy()
    hu[RADIUS > 32] = -2000
    noise = noise_realization(hu, PIXEL, SETTINGS, seed=0)
    assert (noise[RADIUS > 32] == 0).all()
    assert noise[RADIUS < 31].all()


def test_factors_by_hand():
    assert noise_factor(1.0) == 0.0
    assert noise_factor(0.5) == 1.0
    assert noise_factor(0.25) == pytest.approx(np.sqrt(3))
    assert noise_factor(0.2, noise_free=True) == pytest.approx(np.sqrt(5))


@pytest.mark.parametrize(("a", "b"), [(0.25, 0.5), (0.1, 0.3), (1.0, 0.2), (0.5, 1.0)])
@pytest.mark.parametrize("noise_free", [False, True])
def test_two_steps_add_up_to_one(a, b, noise_free):
    """Variances: full dose to b, then b to a * b, is full dose to a * b."""
    one = noise_factor(a * b, noise_free=noise_free) ** 2
    assert noise_factor(b, noise_free=noise_free) ** 2 + noise_factor(a, of=b) ** 2 == pytest.approx(one)


@pytest.mark.parametrize(("a", "of"), [(0.0, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, 1.5), (float("nan"), 1.0)])
def test_fractions_out_of_range_are_refused(a, of):
    with pytest.raises(ValueError, match="Expected dose fractions"):
        noise_factor(a, of=of)


# Where scaling is not exact ------------------------------------------------------------------------------------------


def electronic_excess(incident_photons, fraction, electronic):
    """Deviation of the noise that should be inserted over that of a scaled realization, as the module's docstring has it."""
    return np.sqrt(1 + (1 + fraction) / fraction * electronic / incident_photons)


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("incident_photons", [100.0, 1e3, 1e4])
def test_excess_against_counted_quanta(fraction, incident_photons):
    """Var(p) = 1/N + Ne/N^2 at both doses; their difference over the scaled quantum part."""
    electronic = 100.0
    low, full = (1 / n + electronic / n**2 for n in (fraction * incident_photons, incident_photons))
    scaled = noise_factor(fraction) ** 2 / incident_photons
    assert electronic_excess(incident_photons, fraction, electronic) == pytest.approx(np.sqrt((low - full) / scaled))


@pytest.mark.parametrize(("fraction", "row"), [(0.5, [1.00, 1.01, 1.14, 2.00]), (0.25, [1.00, 1.02, 1.22, 2.45])])
def test_the_table_of_the_docstring(fraction, row):
    found = electronic_excess(np.array([1e5, 1e4, 1e3, 1e2]), fraction, 100.0)
    np.testing.assert_allclose(found, row, atol=0.0051)
    assert electronic_excess(1e5, 0.1, 100.0) == pytest.approx(1.01, abs=0.0051)
    assert electronic_excess(100.0, 0.1, 100.0) == pytest.approx(3.46, abs=0.0051)


def test_excess_in_the_image():
    """A uniform disc: behind its middle all rays have about the same N, so the image's noise exceeds by as much."""
    settings = at(0.25, incident_photons=3e4, electronic_variance=900.0)
    low = insert_noise(WATER, PIXEL, settings, seed=3) - WATER
    scaled = noise_factor(0.25) * noise_realization(WATER, PIXEL, settings, seed=3)
    middle = 3e4 * np.exp(-0.0192 * 2 * 22 * PIXEL[0])
    expected = electronic_excess(middle, 0.25, 900.0)
    assert expected > 1.5
    assert low[CENTRE].std() / scaled[CENTRE].std() == pytest.approx(expected, rel=0.05)


# Floor, ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_the_floor_cuts_what_was_above_it(kind):
    noisy, clean = kind([-1100.0, -1030.0, -2000.0, 5.0]), kind([-1000.0, -1040.0, -2000.0, 0.0])
    assert cut_off(noisy, clean, -1024.0).tolist() == [-1024.0, -1030.0, -2000.0, 5.0]


def test_doses_lie_log_uniformly_in_their_range():
    shares = np.linspace(0, 1, 5)
    np.testing.assert_allclose([dose_between((0.05, 0.8), share) for share in shares], [0.05, 0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize("bad", [(0.0, 0.5), (0.5, 0.1), (0.1, 1.5), (0.1,), (0.1, 0.2, 0.3), (float("nan"), 0.5)])
def test_ranges_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="Expected two dose fractions"):
        check_dose_range(bad)
