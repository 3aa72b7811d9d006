import math

import numpy as np
import pytest
from physics_analytic import coordinates, ellipse_image, ellipse_sinogram

from ct_cncl.transforms.physics import FanBeam, ParallelBeam, back_project, fbp, project

MU = 0.0192
SHAPE, PIXEL = (200, 200), (1.5, 1.5)
ELLIPSES = [(10, -6, 110, 90, 0.2, MU), (40, 15, 20, 20, 0, 0.06 * MU), (-38, -25, 20, 30, 0.4, -0.3 * MU)]
CURVED = FanBeam(720, 460, 2.0572, 595.0, 1085.6)  # the Mayo fan with wider channels
FLAT = FanBeam(720, 500, 2.0572, 595.0, 1085.6, "flat")
BEAMS = pytest.mark.parametrize("beam", [CURVED, FLAT], ids=["curved", "flat"])


def test_the_mayo_scanner():
    fan = FanBeam.mayo()
    assert (fan.views, fan.channels, fan.detector) == (1152, 736, "curved")
    np.testing.assert_allclose(np.diff(fan.fan_angles), 1.2858 / 1085.6)
    np.testing.assert_allclose(fan.fan_angles, -fan.fan_angles[::-1])
    assert fan.positions_mm[-1] == pytest.approx(595 * math.sin(735 / 2 * 1.2858 / 1085.6))
    assert fan.isocentre_spacing_mm == pytest.approx(0.7047, abs=1e-4)
    np.testing.assert_allclose(fan.angles, 2 * np.pi * np.arange(1152) / 1152)


def test_flat_detectors_are_equidistant_along_the_detector():
    np.testing.assert_allclose(np.diff(1085.6 * np.tan(FLAT.fan_angles)), 2.0572)


@BEAMS
def test_rays_pass_through_the_source_of_their_view(beam):
    source_x = -beam.source_isocentre_mm * np.sin(beam.angles)[:, None]
    source_y = beam.source_isocentre_mm * np.cos(beam.angles)[:, None]
    normal = beam.angles[:, None] + beam.fan_angles
    distance = source_x * np.cos(normal) + source_y * np.sin(normal)
    np.testing.assert_allclose(distance, np.broadcast_to(beam.positions_mm, distance.shape), atol=1e-9)


@BEAMS
@pytest.mark.parametrize(("shape", "pixel"), [(SHAPE, PIXEL), ((151, 240), (2.0, 1.25))])
def test_line_integrals_of_ellipses(beam, shape, pixel):
    expected = ellipse_sinogram(beam, ELLIPSES)
    got = project(ellipse_image(shape, pixel, ELLIPSES), pixel, beam)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.003 * expected.max()
    assert abs((got - expected).mean()) < 3e-4 * expected.max()


@BEAMS
def test_reconstruction_within_5_hu_and_without_dc_shift(beam):
    hu = (fbp(ellipse_sinogram(beam, ELLIPSES), beam, SHAPE, PIXEL) / MU - 1) * 1000
    x, y = coordinates(SHAPE, PIXEL)
    inside = ((x - 10) / 110) ** 2 + ((y + 6) / 90) ** 2 < 0.75
    regions = {
        "water": (inside & (np.hypot(x - 40, y - 15) > 30) & (np.hypot(x + 38, y + 25) > 42), 0.0),
        "insert": (np.hypot(x - 40, y - 15) < 13, 60.0),
        "lung-like": (np.hypot(x + 38, y + 25) < 12, -300.0),
    }
    for name, (mask, expected) in regions.items():
        assert abs(hu[mask].mean() - expected) < 0.5, name
        assert np.abs(hu[mask] - expected).max() < 5.0, name


@BEAMS
def test_fan_and_parallel_agree_on_a_centred_disc(beam):
    disc = ellipse_image(SHAPE, PIXEL, [(0, 0, 100, 100, 0, MU)])
    parallel = ParallelBeam.for_image(SHAPE, PIXEL, views=360)
    from_fan, from_parallel = project(disc, PIXEL, beam), project(disc, PIXEL, parallel)
    # At the same distance from the centre a disc has the same chord, in whatever view.
    inside = np.abs(beam.positions_mm) < 90
    chord = np.interp(beam.positions_mm[inside], parallel.positions_mm, from_parallel.mean(axis=0))
    np.testing.assert_allclose(from_fan.mean(axis=0)[inside], chord, rtol=2e-3)
    x, y = coordinates(SHAPE, PIXEL)
    middle = np.hypot(x, y) < 85
    images = [fbp(data, rays, SHAPE, PIXEL) / MU * 1000 for data, rays in ((from_fan, beam), (from_parallel, parallel))]
    assert np.abs(images[0] - images[1])[middle].max() < 2.0


def test_first_view_looks_from_plus_y_and_channels_count_along_x():
    image = np.zeros((101, 101))
    image[80, 50] = 1.0  # x = +30, y = 0
    sinogram = project(image, (1.0, 1.0), FanBeam(4, 401, 1.0, 500.0, 1000.0))
    channel = 200 + math.atan(30 / 500) * 1000
    assert abs(np.argmax(sinogram[0]) - channel) <= 1
    # The source of view 1 stands at x = -500: the point lies on the central ray.
    assert np.argmax(sinogram[1]) == 200
    # That of view 2 at y = -500, and channels run the other way round.
    assert abs(np.argmax(sinogram[2]) - (400 - channel)) <= 1


def test_a_row_of_lines_of_which_some_are_missed_altogether():
    """Regression: a run of channels that no ray of the line before touched must not be skipped."""
    image = np.random.default_rng(0).random((20, 300))
    beam = FanBeam(24, 90, 4.0, 595.0, 1085.6)
    wide = np.pad(image, ((140, 140), (0, 0)))
    np.testing.assert_allclose(project(image, (1.0, 1.0), beam), project(wide, (1.0, 1.0), beam), atol=2e-3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"views": 0}, "1 or more"),
        ({"channel_spacing_mm": 0.0}, "finite and above 0"),
        ({"source_isocentre_mm": math.nan}, "finite and above 0"),
        ({"source_detector_mm": 400.0}, "beyond the isocentre"),
        ({"detector": "round"}, "curved or flat"),
        ({"channels": 2000}, "below 90 degrees"),
    ],
)
def test_impossible_fans_are_refused(bad, message):
    good = {
        "views": 4, "channels": 10, "channel_spacing_mm": 1.0, "source_isocentre_mm": 500.0, "source_detector_mm": 900.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        FanBeam(**(good | bad))


def test_an_image_that_reaches_the_source_is_refused():
    beam = FanBeam(4, 10, 1.0, 50.0, 90.0)
    with pytest.raises(ValueError, match="within 50 mm of the isocentre"):
        project(np.zeros((100, 100)), (1.0, 1.0), beam)
    with pytest.raises(ValueError, match="within 50 mm of the isocentre"):
        back_project(np.zeros((4, 10)), beam, (100, 100), (1.0, 1.0))
