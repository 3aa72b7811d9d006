import numpy as np
import pytest

from ct_cncl.transforms.dataset.simulated_cases import phantom_cases
from ct_cncl.transforms.physics import DoseSettings, insert_noise, project
from ct_cncl.transforms.physics import projections as module
from ct_cncl.transforms.physics.noise_realizations import noise_realization
from ct_cncl.transforms.physics.projections import Projections
from ct_cncl.transforms.physics.simulation import low_dose

PIXEL = (4.0, 4.0)
RADIUS = np.hypot(*np.mgrid[-31.5:32, -31.5:32])
VOLUME = np.stack([np.where(radius > RADIUS, 0.0, -1000.0) for radius in (20, 24)], axis=-1)
SETTINGS = DoseSettings(dose_fraction=0.25, incident_photons=3e4, views=90)
SINOGRAM_BYTES = 4 * 90 * SETTINGS.rays((64, 64), PIXEL).channels


@pytest.fixture
def projected(monkeypatch):
    """Shapes of what was projected through Projections."""
    shapes = []

    def counted(attenuation, pixel, geometry):
        shapes.append(attenuation.shape)
        return project(attenuation, pixel, geometry)

    monkeypatch.setattr(module, "project", counted)
    return shapes


@pytest.mark.parametrize("changes", [{}, {"kernel_gain": (1.0, 0.5, 0.1), "kernel_gain_step_per_mm": 0.05}])
def test_each_slice_is_projected_once_and_nothing_else_changes(projected, changes):
    settings = DoseSettings(dose_fraction=0.25, incident_photons=3e4, views=90, **changes)
    shared = Projections()
    for seed in (1, 2):
        for dose in (None, 0.25):
            kept = noise_realization(VOLUME, PIXEL, settings, seed, counts_at_dose=dose, projections=shared)
            np.testing.assert_array_equal(kept, noise_realization(VOLUME, PIXEL, settings, seed, counts_at_dose=dose))
    low = low_dose(VOLUME, PIXEL, settings, 3, projections=shared)
    np.testing.assert_array_equal(low, low_dose(VOLUME, PIXEL, settings, 3))
    assert len(projected) == 2


def test_what_does_not_fit_is_computed_again(projected):
    shared = Projections(limit_bytes=SINOGRAM_BYTES)
    expected = insert_noise(VOLUME, PIXEL, SETTINGS, 5)
    for _ in range(3):
        np.testing.assert_array_equal(insert_noise(VOLUME, PIXEL, SETTINGS, 5, projections=shared), expected)
    assert len(projected) == 2 + 2  # one slice is kept, the other one projected every time


def test_other_rays_are_not_mixed_up(projected):
    shared = Projections()
    few, many = (DoseSettings(dose_fraction=0.5, incident_photons=3e4, views=views) for views in (60, 90))
    for settings in (few, many, few):
        kept = insert_noise(VOLUME, PIXEL, settings, 5, projections=shared)
        np.testing.assert_array_equal(kept, insert_noise(VOLUME, PIXEL, settings, 5))
    assert len(projected) == 4


def test_a_prepared_phantom_is_projected_once(projected):
    (case,) = phantom_cases(1, first_seed=3, slices=2, dose_fraction=0.25, size=64, realizations=3, photon_counts=1)
    pair = case.make()
    assert len([make() for make in pair.noise]) == 3
    assert len(projected) == 2
