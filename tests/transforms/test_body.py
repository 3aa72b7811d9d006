import numpy as np
import pytest
from scipy import ndimage

from ct_cncl.transforms.body import body_mask, connected_parts

SIDE = 200
X, Y = np.mgrid[:SIDE, :SIDE]


def ellipse(x, y, a, b):
    return ((X - x) / a) ** 2 + ((Y - y) / b) ** 2 < 1


BODY = ellipse(100, 90, 70, 50)
LUNGS = ellipse(70, 85, 22, 30) | ellipse(130, 85, 22, 30)
TABLE = (np.abs(Y - 155 - ((X - 100) / 40) ** 2) < 1.5) & (np.abs(X - 100) < 85)
TUBE = ellipse(100, 30, 2, 2)


def scan(noise=0.0, padding=-1000.0, seed=0):
    """A chest with lungs on a table, a tube above it, in the scanner's circle."""
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[TABLE | TUBE] = 0.0
    hu[BODY] = 40.0
    hu[LUNGS] = -850.0
    hu += np.random.default_rng(seed).normal(0, noise, hu.shape) if noise else 0.0
    hu[np.hypot(X - 99.5, Y - 99.5) > 100] = padding
    return hu


def wrong(mask, expected):
    return (mask != expected).mean()


@pytest.mark.parametrize("padding", [-1000.0, -1024.0, -2000.0, -3024.0])
@pytest.mark.parametrize("noise", [0.0, 30.0, 150.0])
def test_lungs_are_in_table_tube_air_and_padding_are_out(noise, padding):
    mask = body_mask(scan(noise, padding))
    assert wrong(mask, BODY) < (0.001 if noise < 100 else 0.01)
    assert mask[LUNGS].all()
    assert not mask[TABLE].any()
    assert not mask[TUBE].any()


def test_a_bright_implant_and_gas_change_nothing():
    hu = scan(20.0)
    hu[ellipse(100, 60, 4, 4)] = 8000.0
    hu[ellipse(100, 110, 6, 6)] = -1000.0
    assert wrong(body_mask(hu), BODY) < 0.002


def test_arms_and_legs_are_parts_of_the_body():
    arms = ellipse(15, 90, 10, 14) | ellipse(185, 90, 10, 14)
    hu = scan(20.0)
    hu[arms] = 40.0
    assert wrong(body_mask(hu), BODY | arms) < 0.003


def test_a_body_larger_than_the_field_of_view():
    inside = np.hypot(X - 99.5, Y - 99.5) <= 100
    hu = np.where(ellipse(100, 100, 140, 85), 40.0, -1000.0)
    hu[~inside] = -2000.0
    assert wrong(body_mask(hu), ellipse(100, 100, 140, 85) & inside) < 0.002


def test_the_border_of_the_image_is_no_border_of_the_body():
    assert body_mask(np.full((64, 48), 40.0)).all()


def test_no_patient():
    air = np.random.default_rng(0).normal(-1000, 30, (SIDE, SIDE))
    assert not body_mask(air).any()
    assert not body_mask(np.where(TABLE, 0.0, air)).any()


def test_sizes_are_relative():
    """The same scan with four times the pixels."""
    large = np.kron(scan(), np.ones((2, 2)))
    assert wrong(body_mask(large), np.kron(BODY, np.ones((2, 2), bool))) < 0.002


@pytest.mark.parametrize("shape", [(8,), (8, 8, 8), (2, 9)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="slice"):
        body_mask(np.zeros(shape))


@pytest.mark.parametrize("density", [0.3, 0.5, 0.6, 0.9])
def test_connected_parts_equal_scipys(density):
    mask = np.random.default_rng(0).random((40, 57)) < density
    assert np.array_equal(connected_parts(mask), ndimage.label(mask)[0])


def test_connected_parts_of_nothing_and_everything():
    assert not connected_parts(np.zeros((3, 4), bool)).any()
    assert (connected_parts(np.ones((3, 4), bool)) == 1).all()
