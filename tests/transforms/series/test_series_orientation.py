import itertools

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.transforms.series import from_slices, slice_axis, slices_last, to_slices

SPACING = {"R": 0.7, "A": 0.7, "S": 3.0}


def all_orientations():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield order, signs


@pytest.mark.parametrize(("order", "signs"), all_orientations())
def test_marked_voxel_lands_where_the_radiologist_looks(order, signs):
    """The voxel nearest the patient's left, posterior, superior corner is the last of every axis of an axial view."""
    shape = np.array([4, 5, 6])[list(order)]  # 4 along R/L, 5 along A/P, 6 along S/I
    affine = np.eye(4)
    for axis, patient in enumerate(order):
        affine[:, axis] = 0
        affine[patient, axis] = signs[axis] * (0.7, 0.7, 3.0)[patient]
    affine[:3, 3] = 11, -7, 400
    volume = np.arange(120).reshape(shape)
    places = np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]
    left_posterior_superior = places @ np.array([-1, -1, 1])
    marked = np.unravel_index(left_posterior_superior.argmax(), shape)
    turned, view = to_slices(volume, affine)
    assert turned.shape == (4, 5, 6)
    assert view.codes == ("L", "P", "S")
    assert turned[-1, -1, -1] == volume[marked]
    corner = view.affine @ (3, 4, 5, 1)
    np.testing.assert_allclose(corner[:3], places[marked], atol=1e-12)
    np.testing.assert_array_equal(from_slices(turned, view), volume)


@pytest.mark.parametrize(
    ("spacing", "shape", "axis"),
    [
        ((0.7, 0.7, 3.0), (9, 9, 9), 2),
        ((3.0, 0.7, 0.7), (9, 9, 9), 0),
        ((0.7, 3.0, 0.7), (9, 9, 9), 1),
        ((0.7, 0.70001, 3.0), (9, 9, 9), 2),
        ((0.7, 0.7, 0.7), (9, 9, 9), 2),  # isotropic: S/I
        ((0.7, 0.8, 0.9), (9, 9, 9), 2),  # nothing agrees: S/I
        ((0.7, 0.8, 0.7), (9, 9, 1), 2),  # one slice is one slice, whatever its thickness
        ((0.7, 0.7, 0.7), (1, 9, 9), 0),
    ],
)
def test_slice_axis(spacing, shape, axis):
    assert slice_axis(np.diag([*spacing, 1.0]), shape) == axis


def test_isotropic_permuted_volume_goes_by_head_to_feet():
    affine = np.array([[0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    assert slice_axis(affine, (9, 9, 9)) == 1


@pytest.mark.parametrize(
    ("axis", "codes"),
    [(0, ("P", "I", "L")), (1, ("L", "I", "P")), (2, ("L", "P", "S"))],
)
def test_views_and_stated_axis(axis, codes):
    view = slices_last(np.diag([0.7, 0.7, 3.0, 1.0]), (4, 5, 6), axis=axis)
    assert (view.axis, view.codes) == (axis, codes)
    assert nib.aff2axcodes(view.affine) == codes


def test_oblique_affine_keeps_every_voxel_in_place():
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (0.7, 3.0, 0.7), (1, 2, 3)
    volume = rng.normal(size=(4, 5, 6))
    turned, view = to_slices(volume, affine)
    assert view.axis == 1
    there = np.argwhere(turned == volume[1, 2, 3])[0]
    np.testing.assert_allclose(view.affine @ (*there, 1), affine @ (1, 2, 3, 1), atol=1e-12)
    np.testing.assert_array_equal(from_slices(turned, view), volume)
