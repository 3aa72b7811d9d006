import numpy as np
import pytest
from physics_analytic import coordinates, ellipse_sinogram

from ct_cncl.transforms.physics import APODISATIONS, ParallelBeam, back_project, fbp, filter_sinogram, ramp_filter
from ct_cncl.transforms.physics.fbp import apodisation_window

MU = 0.0192


def to_hu(attenuation):
    return (attenuation / MU - 1) * 1000


@pytest.mark.parametrize("apodisation", APODISATIONS)
def test_disc_phantom_is_within_5_hu_and_has_no_dc_shift(apodisation):
    # Without a smoothing window a pixel image of sharp edges rings (Gibbs): there 5 HU hold for the root mean square.
    largest = {"ram-lak": 15.0, "shepp-logan": 10.0}.get(apodisation, 5.0)
    shape, pixel_mm = (256, 256), (0.8, 0.8)
    ellipses = [(0, 0, 85, 70, 0, MU), (30, 12, 18, 18, 0, 0.06 * MU), (-28, -20, 15, 25, 0.4, -0.3 * MU)]
    geometry = ParallelBeam.for_image(shape, pixel_mm, views=360)
    hu = to_hu(fbp(ellipse_sinogram(geometry, ellipses), geometry, shape, pixel_mm, apodisation=apodisation))
    x, y = coordinates(shape, pixel_mm)
    regions = {
        "water": ((np.hypot(x, y) < 60) & (np.hypot(x - 30, y - 12) > 24) & (np.hypot(x + 28, y + 20) > 32), 0.0),
        "insert": (np.hypot(x - 30, y - 12) < 13, 60.0),
        "lung-like": (np.hypot(x + 28, y + 20) < 10, -300.0),
    }
    for name, (mask, expected) in regions.items():
        assert abs(hu[mask].mean() - expected) < 0.5, name
        assert np.abs(hu[mask] - expected).max() < largest, name
        assert np.sqrt(np.mean((hu[mask] - expected) ** 2)) < 5.0, name


def test_non_square_pixels_and_off_centre_disc():
    shape, pixel_mm = (120, 200), (1.5, 0.9)
    geometry = ParallelBeam.for_image(shape, pixel_mm, views=360)
    sinogram = ellipse_sinogram(geometry, [(20, -25, 50, 50, 0, MU)])
    hu = to_hu(fbp(sinogram, geometry, shape, pixel_mm))
    x, y = coordinates(shape, pixel_mm)
    distance = np.hypot(x - 20, y + 25)
    assert np.abs(hu[distance < 44]).max() < 5.0
    assert abs(hu[distance < 44].mean()) < 0.5
    assert abs(hu[distance > 56].mean() + 1000) < 2.0


def test_ramp_is_the_frequency_and_keeps_the_mean():
    response = ramp_filter(400, 0.5, "ram-lak")
    frequency = np.linspace(0, 1.0, response.size)  # Nyquist is 1 / mm
    np.testing.assert_allclose(response, frequency, atol=0.002)
    assert response[0] > 0  # sampling |f| gives 0 here, and with it a shifted image


@pytest.mark.parametrize("channels", [1, 2, 5, 95, 96, 97, 700])
def test_filtering_is_the_linear_convolution_with_the_kernel(channels):
    spacing = 0.7
    view = np.random.default_rng(0).random((1, channels))
    n = np.arange(-channels, channels + 1)
    kernel = np.where(n % 2 == 1, -1.0 / (np.pi * np.where(n == 0, 1, n) * spacing) ** 2, 0.0)
    kernel[channels] = 1 / (4 * spacing**2)
    expected = spacing * np.convolve(view[0], kernel)[channels : 2 * channels]
    got = filter_sinogram(view, ParallelBeam(1, channels, spacing), "ram-lak")[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_apodisations_at_known_frequencies():
    at = np.array([0.0, 0.25, 0.5, 1.0])
    expected = {
        "ram-lak": [1, 1, 1, 1],
        "shepp-logan": [1, np.sinc(0.125), np.sinc(0.25), 2 / np.pi],
        "cosine": [1, np.cos(np.pi / 8), np.sqrt(0.5), 0],
        "hann": [1, 0.8535534, 0.5, 0],
    }
    assert set(expected) == set(APODISATIONS)
    for name, values in expected.items():
        np.testing.assert_allclose(apodisation_window(at, name, 1.0), values, atol=1e-7, err_msg=name)
        halved = apodisation_window(at / 2, name, 0.5)
        np.testing.assert_allclose(halved, values, atol=1e-7, err_msg=f"{name}, half the cut-off")
        assert apodisation_window(np.array([0.51]), name, 0.5)[0] == 0


def test_a_cutoff_far_above_nyquist_is_the_bare_ramp():
    np.testing.assert_allclose(ramp_filter(64, 1.0, "hann", 50.0), ramp_filter(64, 1.0, "ram-lak"), atol=1e-3)


@pytest.mark.parametrize(("apodisation", "cutoff"), [("hamming", 1.0), ("hann", 0.0), ("hann", -1.0), ("hann", np.nan)])
def test_unknown_filter_is_refused(apodisation, cutoff):
    with pytest.raises(ValueError, match=r"Expected .* but got"):
        ramp_filter(64, 1.0, apodisation, cutoff)


def test_sinogram_of_another_geometry_is_refused():
    with pytest.raises(ValueError, match=r"Expected a sinogram .*\(4, 8\) but got \(4, 9\)"):
        back_project(np.zeros((4, 9)), ParallelBeam(4, 8, 1.0), (8, 8), (1.0, 1.0))
