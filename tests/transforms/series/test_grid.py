import numpy as np
import pytest

from ct_cncl.transforms.series.grid import TOLERANCE_MM, SliceGrid


def grid(*, pixel=0.8, shift=(0.0, 0.0, 0.0), shape=(512, 512, 5), step=2.0):
    affine = np.diag([-pixel, -pixel, step, 1.0])
    affine[:3, 3] = shift
    return SliceGrid.of_volume(affine, shape)


def test_slices_at_the_same_place_are_partners():
    assert grid().partners(grid(shift=(0, 0, 4.0))) == [None, None, 0, 1, 2]
    assert grid().partners(grid(shape=(512, 512, 9), step=1.0)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("millimetres", "same"), [(0.9 * TOLERANCE_MM, True), (1.1 * TOLERANCE_MM, False)])
def test_places_may_differ_by_the_tolerance(millimetres, same):
    assert grid().same_slices(grid(shift=(0, millimetres, 0))) == same
    assert grid().same_slices(grid(shift=(0, 0, -millimetres))) == same


def test_a_small_difference_of_pixels_adds_up_over_the_slice():
    """0.0001 mm a pixel are 0.05 mm at the far corner, 0.001 mm are half a pixel."""
    assert grid().same_plane(grid(pixel=0.8001))
    assert not grid().same_plane(grid(pixel=0.801))


def test_phases_at_one_place_go_together_in_their_order():
    corners = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 2.0], [0, 0, 2.0]])
    steps = np.array([[0.8, 0, 0], [0, 0.8, 0]])
    own = SliceGrid(corners, steps, (64, 64), np.array([0, 1, 0, 1]))
    turned = SliceGrid(corners, steps, (64, 64), np.array([1, 0, 1, 0]))
    assert own.partners(turned) == [1, 0, 3, 2]
    assert own.partners(SliceGrid(corners[::2], steps, (64, 64), np.zeros(2, int))) == [None] * 4


def test_sides_and_places_are_those_of_the_patient():
    """An axial slice of a tilted gantry, and a sagittal one: letters and millimetres by hand."""
    corners, steps = np.array([[100.0, 80.0, -20.0]]), np.array([[-0.5, 0.0, 0.0], [0.0, -0.45, -0.2]])
    tilted = SliceGrid(corners, steps, (8, 8), np.zeros(1, int))
    assert tilted.sides == ("R", "AS", "L", "PI")
    along = np.array([0.0, -0.2, 0.45]) / np.hypot(0.2, 0.45)  # L x PI points to the head
    assert tilted.position(0) == f"IA {-(corners[0] @ along):.1f} mm"
    sagittal = SliceGrid(corners, np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]), (8, 8), np.zeros(1, int))
    assert sagittal.sides == ("A", "S", "P", "I")
    assert sagittal.position(0) == "R 100.0 mm"
