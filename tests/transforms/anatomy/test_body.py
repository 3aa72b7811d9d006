import numpy as np
import pytest
from scipy import ndimage

from ct_cncl.transforms.anatomy.body import body_mask

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


HEAD = ellipse(100, 95, 62, 78)
SKULL = ellipse(100, 95, 57, 73) & ~ellipse(100, 95, 51, 67)


def head(noise=10.0):
    """250 mm of field of view: scalp, skull, sinuses, an open nostril; a holder of plastic, lined with foam."""
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[ellipse(100, 110, 76, 86) & ~ellipse(100, 110, 73, 83) & (Y > 100)] = 80.0
    hu[ellipse(100, 110, 72, 82) & (Y > 140)] = -950.0
    hu[HEAD] = 40.0
    hu[SKULL] = 1200.0
    hu[ellipse(88, 38, 7, 5) | ellipse(112, 38, 7, 5)] = -980.0
    hu[(np.abs(X - 100) < 2) & (Y < 55)] = -980.0
    return hu + np.random.default_rng(0).normal(0, noise, hu.shape)


def test_a_head_in_its_holder_with_sinuses_and_a_nostril():
    mask = body_mask(head())
    assert wrong(mask, HEAD) < 0.005
    assert mask[ellipse(88, 38, 7, 5) | SKULL].mean() > 0.99
    assert not mask[(X < 36) | (X > 164) | (Y > 180)].any()


@pytest.mark.parametrize(
    "parts",
    [
        ellipse(65, 110, 22, 24) | ellipse(135, 110, 22, 24),  # two legs
        ellipse(80, 90, 10, 7),  # a wrist in a field of view for a chest
        ellipse(150, 60, 30, 25),  # a child, off centre
    ],
)
@pytest.mark.parametrize("table", [False, True])
def test_small_parts_of_a_large_field_of_view(parts, table):
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[TABLE & table] = 0.0
    hu[parts] = 50.0
    core = ndimage.distance_transform_edt(parts) > 4
    hu[core & (X % 30 < 5)] = 900.0  # bones
    mask = body_mask(hu + np.random.default_rng(0).normal(0, 20, hu.shape))
    assert wrong(mask, parts) < 0.003
    assert mask[core].all()


def test_gas_under_the_skin_and_in_the_bowel_is_inside():
    hu = scan(20.0)
    pockets = ellipse(100, 52, 20, 3) | ellipse(60, 118, 5, 5)
    hu[pockets] = -1000.0
    assert body_mask(hu)[pockets].all()


def test_a_body_larger_than_the_field_of_view():
    inside = np.hypot(X - 99.5, Y - 99.5) <= 100
    hu = np.where(ellipse(100, 100, 140, 85), 40.0, -1000.0)
    hu[~inside] = -2000.0
    assert wrong(body_mask(hu), ellipse(100, 100, 140, 85) & inside) < 0.002


@pytest.mark.parametrize("noise", [0.0, 60.0])
@pytest.mark.parametrize("circle", [False, True])
def test_a_field_of_view_within_the_lungs_is_all_patient(noise, circle):
    """Targeted reconstruction: lung to the edge, a heart; the circle's outside is the scanner's padding."""
    x, y = np.mgrid[-64:64, -64:64]
    hu = np.full((128, 128), -860.0)
    hu[np.hypot(x - 10, y) < 30] = 40
    hu += noise * np.random.default_rng(0).normal(size=hu.shape)
    hu = np.maximum(hu, -1024)
    seen = np.hypot(x, y) < 62 if circle else np.ones(hu.shape, dtype=bool)
    hu[~seen] = -2000
    assert (body_mask(hu) == seen).mean() > 0.999


def test_a_lung_that_the_edge_cuts_open_beside_air_outside():
    """Half a chest: its wall and the air beyond it on the left, its lung cut on the right."""
    hu = np.full((128, 128), -1000.0)
    hu[30:, 20:108] = 40.0
    hu[50:, 40:90] = -850.0
    expected = np.zeros(hu.shape, dtype=bool)
    expected[30:, 20:108] = True
    assert (body_mask(hu) == expected).mean() > 0.995


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
