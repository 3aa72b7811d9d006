"""The wall and the diaphragm part lungs from liver."""

from __future__ import annotations

import numpy as np
import pytest

from ct_cncl.transforms.phantom.liver import liver_distance
from ct_cncl.transforms.phantom.lungs import lung_distance
from ct_cncl.transforms.phantom.patient import Patient, draw_patient
from ct_cncl.transforms.phantom.trunk import around_trunk, diaphragm, outside_wall, wall_radii


@pytest.fixture(scope="module")
def patient() -> Patient:
    return draw_patient(np.random.default_rng(0), None)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(1).uniform([-140, -100, -200], [140, 90, 200], (20000, 3))


@pytest.mark.parametrize("z", [-150.0, 0.0, 120.0])
def test_the_wall_has_its_stated_radii(patient, z):
    width, front, back = wall_radii(z, patient)
    on = np.array([[width, 0], [-width, 0], [0, -front], [0, back]], np.float32)
    np.testing.assert_allclose(outside_wall(on[:, 0], on[:, 1], z, patient), 0, atol=0.05)
    assert outside_wall(np.float32(width + 5), np.float32(0), z, patient) == pytest.approx(5, abs=0.05)


def test_lung_and_liver_never_meet(patient, points):
    u, v, z = points.T
    lung, liver = lung_distance(u, v, z, patient) < 0, liver_distance(u, v, z, patient) < 0
    assert lung.sum() > 1000
    assert liver.sum() > 1000
    assert not (lung & liver).any()
    assert (z[lung] > diaphragm(u, v)[lung]).all()
    assert (outside_wall(u, v, z, patient)[lung | liver] < 0).all()


def test_the_diaphragm_is_highest_on_the_right_and_deep_at_the_back():
    u = np.array([-62.0, 62.0, -62.0])
    v = np.array([-5.0, -2.0, 70.0])
    right, left, back = diaphragm(u, v)
    assert right > left > back
    assert back < right - 50


def test_around_trunk_passes_near_its_knots():
    value = around_trunk(np.array([0.0, 1.5, 3.1], np.float32), [(0, 2), (1.5, 5), (3.14, 2)])
    np.testing.assert_allclose(value, [2, 5, 2], atol=0.4)
