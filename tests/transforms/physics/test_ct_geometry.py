import math

import numpy as np
import pytest

from ct_cncl.transforms.physics import ParallelBeam, check_pixel_size


@pytest.mark.parametrize(
    ("shape", "pixel_mm"), [((64, 64), (1.0, 1.0)), ((40, 90), (0.7, 0.7)), ((50, 60), (2.0, 0.5))]
)
def test_detector_covers_the_diagonal_with_channels_as_fine_as_the_pixels(shape, pixel_mm):
    geometry = ParallelBeam.for_image(shape, pixel_mm)
    assert geometry.channel_spacing_mm == min(pixel_mm)
    half_diagonal = math.hypot(shape[0] * pixel_mm[0], shape[1] * pixel_mm[1]) / 2
    assert half_diagonal < geometry.positions_mm[-1] < half_diagonal + 2 * min(pixel_mm)


@pytest.mark.parametrize("channels", [8, 9])
def test_channels_are_symmetric_and_angles_cover_half_a_turn_once(channels):
    geometry = ParallelBeam(views=6, channels=channels, channel_spacing_mm=0.3)
    np.testing.assert_allclose(geometry.positions_mm, -geometry.positions_mm[::-1], atol=1e-12)
    np.testing.assert_allclose(np.diff(geometry.positions_mm), 0.3)
    np.testing.assert_allclose(geometry.angles, np.arange(6) * math.pi / 6)


@pytest.mark.parametrize(
    "bad", [None, (1.0,), (1.0, 1.0, 1.0), (0.0, 1.0), (1.0, -1.0), (1.0, math.nan), (math.inf, 1.0)]
)
def test_bad_pixel_size_is_refused_with_what_to_do(bad):
    with pytest.raises(ValueError, match=r"Expected pixel_mm .* but got .*PixelSpacing"):
        check_pixel_size(bad)


@pytest.mark.parametrize(
    "bad", [{"views": 0}, {"channels": 0}, {"channel_spacing_mm": 0.0}, {"channel_spacing_mm": math.nan}]
)
def test_impossible_geometry_is_refused(bad):
    with pytest.raises(ValueError, match="Expected"):
        ParallelBeam(**({"views": 4, "channels": 4, "channel_spacing_mm": 1.0} | bad))


@pytest.mark.parametrize("pixel", [(0.0008, 0.0008), (500.0, 500.0), (0.8, 800.0)])
def test_pixels_of_no_ct_are_refused(pixel):
    """Metres or microns under the name of mm: noise was inserted into nonsense, or an array of no size was searched for its maximum."""
    with pytest.raises(ValueError, match=r"Expected pixels of 0\.01 to 50 mm but got .* metres or microns"):
        check_pixel_size(pixel)
    assert check_pixel_size((0.01, 50)) == (0.01, 50.0)
