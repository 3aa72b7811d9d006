import multiprocessing

import numba
import numpy as np
import pytest
from physics_analytic import ellipse_image, ellipse_sinogram

from ct_cncl.transforms.physics import ParallelBeam, project

BODY = (0, 0, 70, 50, 0, 0.02)
CASES = {
    "centred disc": ((320, 320), (0.64, 0.64), [(0, 0, 80, 80, 0, 0.02)]),
    "off-centre": ((256, 256), (0.8, 0.8), [(22, -31, 50, 35, 0.6, 0.02)]),
    "odd size": ((255, 201), (0.8, 0.8), [(-10, 12, 60, 40, -0.3, 0.02)]),
    "non-square pixels": ((160, 256), (1.4, 0.7), [(15, -12, 60, 45, 0.9, 0.02)]),
    "non-square pixels, other axis": ((256, 128), (0.6, 1.3), [(-9, 14, 48, 36, 0.4, 0.02)]),
    "body with inserts": ((256, 256), (0.8, 0.8), [BODY, (30, 10, 12, 20, 0.3, -0.015), (-20, -15, 9, 9, 0, 0.02)]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_line_integrals_of_ellipses(case):
    shape, pixel_mm, ellipses = case
    geometry = ParallelBeam.for_image(shape, pixel_mm, views=90)
    expected = ellipse_sinogram(geometry, ellipses)
    got = project(ellipse_image(shape, pixel_mm, ellipses), pixel_mm, geometry)
    assert got.dtype == np.float32
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.003 * expected.max()
    assert abs((got - expected).mean()) < 3e-4 * expected.max()  # the step length: no systematic error


def test_every_view_holds_the_whole_mass():
    shape, pixel_mm = (64, 48), (1.2, 0.9)
    image = np.random.default_rng(0).random(shape)
    geometry = ParallelBeam.for_image(shape, pixel_mm, views=12)
    mass = project(image, pixel_mm, geometry).sum(axis=1) * geometry.channel_spacing_mm
    np.testing.assert_allclose(mass, image.sum() * 1.2 * 0.9, rtol=0.01)


def test_first_axis_is_x_and_view_zero_looks_along_y():
    image = np.zeros((33, 33))
    image[24, 16] = 1.0  # x = +8, y = 0
    sinogram = project(image, (1.0, 1.0), ParallelBeam(views=2, channels=33, channel_spacing_mm=1.0))
    assert np.argmax(sinogram[0]) == 24  # t = x
    assert np.argmax(sinogram[1]) == 16  # t = y
    assert sinogram[0, 24] == 1.0


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    image = np.random.default_rng(0).random((50, 60))
    geometry = ParallelBeam.for_image(image.shape, (1.0, 1.0), views=31)
    several = project(image, (1.0, 1.0), geometry)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    np.testing.assert_array_equal(project(image, (1.0, 1.0), geometry), several)


def test_nan_is_seen_and_volumes_are_refused():
    geometry = ParallelBeam.for_image((16, 16), (1.0, 1.0), views=4)
    image = np.zeros((16, 16))
    image[8, 8] = np.nan
    assert np.isnan(project(image, (1.0, 1.0), geometry)).any()
    with pytest.raises(ValueError, match="Expected one slice"):
        project(np.zeros((4, 4, 4)), (1.0, 1.0), geometry)


def test_detector_narrower_than_the_image_and_image_of_one_pixel():
    image = np.random.default_rng(0).random((40, 40))
    wide = ParallelBeam(views=10, channels=61, channel_spacing_mm=1.0)
    narrow = ParallelBeam(views=10, channels=21, channel_spacing_mm=1.0)
    np.testing.assert_allclose(project(image, (1, 1), narrow), project(image, (1, 1), wide)[:, 20:41], rtol=1e-4)
    single = project(np.ones((1, 1)), (1, 1), ParallelBeam(views=1, channels=3, channel_spacing_mm=1.0))
    np.testing.assert_allclose(single, [[0, 1, 0]], atol=1e-6)


def _project_into(queue, image, geometry):
    queue.put(project(image, (1.0, 1.0), geometry))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_process_forked_after_use_can_project():
    """Regression: Numba's own parallel regions kill such a process (a DataLoader worker) under GNU OpenMP."""
    image = np.random.default_rng(0).random((40, 40))
    geometry = ParallelBeam.for_image(image.shape, (1.0, 1.0), views=8)
    here = project(image, (1.0, 1.0), geometry)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_project_into, args=(queue, image, geometry))
    worker.start()
    there = queue.get(timeout=60)
    worker.join(timeout=60)
    np.testing.assert_array_equal(there, here)
