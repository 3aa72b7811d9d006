"""Random fields: unit variance, wavelengths in range, the same on grids and at points."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.phantom.waves import draw_waves


def test_grid_and_points_agree():
    waves = draw_waves(np.random.default_rng(0), 20, 60)
    x, y = np.linspace(-50, 50, 7, dtype=np.float32), np.linspace(-30, 30, 5, dtype=np.float32)
    grid = waves.on_grid(x, y, 12.0)
    points = np.array([[a, b, 12.0] for a in x for b in y])
    np.testing.assert_allclose(grid.ravel(), waves.at(points), atol=2e-4)


def test_zero_mean_and_unit_variance():
    waves = draw_waves(np.random.default_rng(1), 3, 9, count=192)
    axis = np.linspace(-200, 200, 300, dtype=np.float32)
    field = waves.on_grid(axis, axis, 0.0)
    assert abs(field.mean()) < 0.05
    assert abs(field.std() - 1) < 0.12


def test_wavelengths_lie_in_the_stated_range():
    waves = draw_waves(np.random.default_rng(2), 5, 8)
    length = 2 * np.pi / np.linalg.norm(waves.vectors, axis=1)
    assert length.min() >= 4.999
    assert length.max() <= 8.001
