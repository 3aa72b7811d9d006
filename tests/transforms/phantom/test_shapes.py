"""Signed distances against analytic cases."""

from __future__ import annotations

import numpy as np
import pytest

from ct_cncl.transforms.phantom.shapes import (
    Ellipsoid,
    capsule,
    ellipse,
    rotation,
    smooth_intersection,
    smooth_union,
    smoothstep,
)


def test_a_sphere_has_its_exact_distance():
    points = np.random.default_rng(0).uniform(-30, 30, (200, 3))
    points = points[np.linalg.norm(points - [1, 2, 3], axis=1) > 1]
    sphere = Ellipsoid((1.0, 2.0, 3.0), (10.0, 10.0, 10.0))
    expected = np.linalg.norm(points - [1, 2, 3], axis=1) - 10
    np.testing.assert_allclose(sphere.distance(*points.T), expected, atol=1e-3)


def test_the_surface_of_a_turned_ellipsoid_is_at_zero():
    axes = rotation(0.7, 0.3)
    np.testing.assert_allclose(np.array(axes) @ np.array(axes).T, np.eye(3), atol=1e-12)
    body = Ellipsoid((5.0, -4.0, 2.0), (10.0, 20.0, 30.0), axes)
    on = np.random.default_rng(1).normal(size=(50, 3))
    on /= np.linalg.norm(on, axis=1, keepdims=True)
    points = (on * body.radii) @ np.array(axes) + body.centre
    np.testing.assert_allclose(body.distance(*points.T), 0, atol=1e-3)


def test_ellipse_on_its_axes():
    u, v = np.array([12.0, 0, -10], np.float32), np.array([0.0, 7, 0], np.float32)
    distance = ellipse(u, v, (0, 0), (10, 5))
    assert distance[2] == pytest.approx(0, abs=1e-5)
    assert distance[0] > 0
    assert distance[1] > 0


def test_capsule():
    u, v = np.array([5.0, -3, 12], np.float32), np.array([4.0, 0, 0], np.float32)
    np.testing.assert_allclose(capsule(u, v, (0, 0), (10, 0), (1, 1)), [3, 2, 1], atol=1e-5)


def test_smooth_joins_equal_the_sharp_ones_away_from_the_seam():
    a, b = np.array([-5.0, 8.0, 1.0], np.float32), np.array([4.0, -2.0, 1.0], np.float32)
    np.testing.assert_allclose(smooth_union(a, b, 2.0)[:2], np.minimum(a, b)[:2])
    np.testing.assert_allclose(smooth_intersection(a, b, 2.0)[:2], np.maximum(a, b)[:2])
    assert smooth_union(a, b, 2.0)[2] == pytest.approx(0.5)
    assert smooth_intersection(a, b, 2.0)[2] == pytest.approx(1.5)


def test_smoothstep():
    np.testing.assert_allclose(smoothstep(0, 2, np.array([-1, 0, 1, 2, 3])), [0, 0, 0.5, 1, 1])
