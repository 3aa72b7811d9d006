import numpy as np
import pytest

from ct_cncl.transforms.physics.truncation import truncated_share, truncation_warning

SIZE, PIXEL = 256, (1.5, 1.5)
X, Y = np.meshgrid((np.arange(SIZE) - 127.5) * 1.5, (np.arange(SIZE) - 127.5) * 1.5, indexing="ij")
RADIUS = np.hypot(X, Y)
NOISE = np.random.default_rng(0).normal(0, 20, (SIZE, SIZE))


def body(a, b, x0=0.0, y0=0.0):
    """An elliptical body of fat and muscle with lungs; (x, y) HU."""
    u = ((X - x0) / a) ** 2 + ((Y - y0) / b) ** 2
    hu = np.where(u < 1, -100.0, -1000.0)
    hu[u < 0.8] = 50
    for side in (-1, 1):
        hu[((X - x0 - side * a / 2.5) / (a / 4)) ** 2 + ((Y - y0) / (b / 2)) ** 2 < 1] = -850
    return hu + NOISE


def table(hu):
    """A carbon shell of 4 mm around foam, from edge to edge, and rails of 12 mm where it leaves the field."""
    hu = hu.copy()
    hu[(Y > 130) & (Y < 160)] = -900
    hu[((Y > 130) & (Y < 134)) | ((Y > 156) & (Y < 160))] = 0
    hu[(np.abs(X) > 180) & (np.abs(Y - 145) < 6)] = 100
    return hu


def padded(hu, value=-2000.0, radius=SIZE / 2 * 1.5):
    return np.where(radius <= RADIUS, value, hu)


def test_a_whole_body_is_not_cut():
    assert truncated_share(body(160, 110), PIXEL) == 0.0
    assert truncated_share(padded(body(160, 110)), PIXEL) == 0.0


@pytest.mark.parametrize("fill", [lambda hu: hu, padded], ids=["image border", "padding"])
def test_a_table_is_no_body(fill):
    assert truncated_share(fill(table(body(160, 110))), PIXEL) == 0.0
    assert truncated_share(fill(table(np.full((SIZE, SIZE), -1000.0) + NOISE)), PIXEL) == 0.0


def test_share_at_the_image_border():
    """Muscle that fills the right half: one whole side and two halves of the border."""
    assert truncated_share(np.where(X > 0, 50.0, -1000.0), PIXEL) == pytest.approx(0.5, abs=0.06)
    assert truncated_share(np.full((SIZE, SIZE), 50.0), PIXEL) == 1.0


@pytest.mark.parametrize("value", [-1024.0, -2000.0])
def test_share_at_the_padding_circle(value):
    assert truncated_share(padded(np.where(X > 0, 50.0, -1000.0 + NOISE), value), PIXEL) == pytest.approx(0.5, abs=0.06)


def test_a_body_beyond_the_field_is_cut_the_more_the_larger_it_is():
    shares = [truncated_share(padded(body(a, 150)), PIXEL) for a in (185, 200, 230)]
    assert shares[0] == 0.0
    assert 0.01 < shares[1] < shares[2] < 0.5


def test_an_arm_at_the_edge_is_cut():
    hu = np.where(((X - 190) / 40) ** 2 + (Y / 45) ** 2 < 1, 50.0, body(130, 100))
    assert 0.01 < truncated_share(hu, PIXEL) < 0.15


def test_padding_is_no_edge_of_its_own_and_tiny_slices_say_nothing():
    assert truncated_share(np.full((SIZE, SIZE), -2000.0), PIXEL) == 0.0
    assert truncated_share(np.full((8, 8), 40.0), (1.0, 1.0)) == 0.0


def test_non_square_pixels():
    assert truncated_share(body(160, 110)[:, ::2], (1.5, 3.0)) == 0.0
    assert truncated_share(np.where(X > 0, 50.0, -1000.0)[::2], (3.0, 1.5)) == pytest.approx(0.5, abs=0.08)


def test_the_warning_counts_the_slices():
    whole, cut = body(160, 110), np.full((SIZE, SIZE), 50.0)
    assert truncation_warning(np.stack([whole, whole], axis=2), PIXEL) == ""
    text = truncation_warning(np.stack([whole, cut, whole], axis=2), PIXEL)
    assert "field of view smaller than the body" in text
    assert "1 of 3 slices" in text
    assert "100 %" in text
    assert "\n" not in text


def test_a_volume_is_refused_as_a_slice():
    with pytest.raises(ValueError, match="Expected one slice"):
        truncated_share(np.zeros((8, 8, 2)), PIXEL)
