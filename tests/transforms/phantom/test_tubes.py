"""Painted tubes cover the area and lie at the place they should."""

from __future__ import annotations

import numpy as np
import pytest

from ct_cncl.transforms.phantom.canvas import Canvas, new_canvas
from ct_cncl.transforms.phantom.frame import PatientFrame, draw_frame
from ct_cncl.transforms.phantom.tubes import Tubes, coverage, join, polyline


@pytest.fixture
def frame() -> PatientFrame:
    return draw_frame(np.random.default_rng(0), (1.05, 0.95, 1.0), (3.0, -20.0))


@pytest.fixture
def canvas(frame) -> Canvas:
    axis = (np.arange(160, dtype=np.float32) - 79.5) * np.float32(0.8)
    return new_canvas(frame, {}, axis, axis, 0.0)


def rod(start, end, radius) -> Tubes:
    return Tubes(np.array([start], float), np.array([end], float), np.array([radius]), np.array([radius]))


@pytest.mark.parametrize("radius", [0.3, 0.8, 2.0, 6.0])
def test_a_tube_through_the_slice_covers_its_section(canvas, radius):
    cover = coverage(canvas, rod((10.2, -7.3, -20), (10.2, -7.3, 20), radius))
    area = cover.sum() * canvas.px**2
    assert area == pytest.approx(np.pi * radius**2, rel=0.1 if radius > 0.5 else 0.7)
    weights = cover / cover.sum()
    assert (weights.sum(1) * canvas.x).sum() == pytest.approx(10.2, abs=0.25)
    assert (weights.sum(0) * canvas.y).sum() == pytest.approx(-7.3, abs=0.25)


def test_a_tube_elsewhere_or_outside_the_picture_leaves_nothing(canvas):
    assert coverage(canvas, rod((0, 0, 30), (5, 5, 40), 3.0)).sum() == 0
    assert coverage(canvas, rod((500, 0, 0), (510, 0, 0), 3.0)).sum() == 0


def test_a_tube_over_the_border_is_cut_there(canvas):
    cover = coverage(canvas, rod((-70, 0, 0), (-55, 0, 0), 3.0))
    assert cover[0].max() == 1
    assert cover[-1].max() == 0


def test_polyline_is_connected_and_cut_short():
    tube = polyline(np.array([[0, 0, 0], [40, 0, 0], [40, 40, 10]], float), np.array([5, 4, 3.0]))
    np.testing.assert_allclose(tube.end[:-1], tube.start[1:])
    np.testing.assert_allclose(tube.start[0], [0, 0, 0])
    np.testing.assert_allclose(tube.end[-1], [40, 40, 10])
    assert np.linalg.norm(tube.end - tube.start, axis=1).max() <= 8.0 + 1e-9
    assert len(join(tube, tube).r0) == 2 * len(tube.r0)


def test_frame_there_and_back(frame):
    x, y = np.linspace(-120, 120, 9, dtype=np.float32), np.linspace(-90, 90, 7, dtype=np.float32)
    u, v, z = frame.grid(x, y, 12.0)
    nominal = np.stack([u.ravel(), v.ravel(), np.full(u.size, z)], axis=1)
    back = frame.to_picture(nominal)
    expected = np.array([[a, b, 12.0] for a in x for b in y])
    np.testing.assert_allclose(back, expected, atol=0.6)


def test_views_paint_into_the_slice(canvas):
    view = canvas.around(0, 0, 10)
    view.paint(np.full(view.hu.shape, -5, np.float32), 100.0, "liver")
    assert canvas.hu.max() == 100
    assert (canvas.labels > 0).sum() == view.hu.size
