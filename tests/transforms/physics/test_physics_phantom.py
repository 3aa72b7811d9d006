import numpy as np
import pytest
from physics_analytic import ellipse_image, ellipse_sinogram

from ct_cncl.transforms.physics import (
    Ellipse,
    FanBeam,
    ParallelBeam,
    low_contrast_phantom,
    phantom_hu,
    phantom_line_integrals,
    project,
    resolution_phantom,
    water_cylinder,
)

MU = 0.0192
SHAPE, PIXEL = (160, 140), (1.5, 1.6)


def test_image_and_line_integrals_equal_an_independent_formula():
    phantom = [Ellipse(5, -8, 80, 60, 1000.0, 0.4), Ellipse(-20, 10, 12, 20, -250.0, -0.7)]
    reference = [(part.x_mm, part.y_mm, part.a_mm, part.b_mm, part.angle, part.value) for part in phantom]
    np.testing.assert_allclose(
        phantom_hu(phantom, SHAPE, PIXEL), ellipse_image(SHAPE, PIXEL, reference) - 1000, atol=0.01
    )
    for beam in (ParallelBeam.for_image(SHAPE, PIXEL, 60), FanBeam(60, 120, 4.0, 595.0, 1085.6)):
        expected = ellipse_sinogram(beam, reference) * MU / 1000
        np.testing.assert_allclose(phantom_line_integrals(phantom, beam, MU), expected, atol=1e-12)


@pytest.mark.parametrize("phantom", [water_cylinder(), resolution_phantom(), low_contrast_phantom()])
def test_projection_of_the_image_is_the_analytic_one(phantom):
    beam = ParallelBeam.for_image(SHAPE, PIXEL, 60)
    image = (phantom_hu(phantom, SHAPE, PIXEL) + 1000) * (MU / 1000)
    expected = phantom_line_integrals(phantom, beam, MU)
    error = project(image, PIXEL, beam) - expected
    assert np.sqrt(np.mean(error**2)) < 0.003 * expected.max()


def test_inserts_do_not_overlap_and_lie_in_the_water():
    for phantom in (resolution_phantom(80.0), low_contrast_phantom(80.0)):
        inserts = phantom[1:]
        for n, one in enumerate(inserts):
            assert np.hypot(one.x_mm, one.y_mm) + one.a_mm < 80.0
            for other in inserts[n + 1 :]:
                assert np.hypot(one.x_mm - other.x_mm, one.y_mm - other.y_mm) > one.a_mm + other.a_mm


def test_an_ellipse_without_extent_is_refused():
    with pytest.raises(ValueError, match="half axes above 0"):
        Ellipse(0, 0, 0, 1, 1000.0)
