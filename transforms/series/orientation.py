"""The network's view of a volume: slices last, in-plane axes in a fixed direction. Permutation and flips only: exact.

In-plane axes run as a radiologist's picture does when shown with axis 0 to the right and axis 1 downwards:

    slices along   axis 0   axis 1   axis 2
    S/I (axial)    L        P        S
    A/P (coronal)  L        I        P
    R/L (sagittal) P        I        L
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from ct_cncl.transforms.series.scan import voxel_spacing

_SAME_SPACING = 1e-3
_VIEWS = {0: ("P", "I", "L"), 1: ("L", "I", "P"), 2: ("L", "P", "S")}


@dataclass(frozen=True, eq=False)
class SliceOrder:
    """How a volume as stored is turned into slices, and back.

    Attributes:
        axis: the stored axis along which the slices lie.
        codes: patient directions the new axes run to, for example ("L", "P", "S").
        affine: (4, 4) float64, voxel of the turned volume -> RAS mm.
        forward: (3, 2) nibabel orientation from stored to turned.
        backward: (3, 2) nibabel orientation from turned to stored.
    """

    axis: int
    codes: tuple[str, str, str]
    affine: np.ndarray
    forward: np.ndarray
    backward: np.ndarray

    def apply(self, volume: np.ndarray) -> np.ndarray:
        """(x, y, z) as stored -> (columns, rows, slices); a view."""
        return nib.orientations.apply_orientation(volume, self.forward)

    def undo(self, volume: np.ndarray) -> np.ndarray:
        """(columns, rows, slices) -> (x, y, z) as stored; a view, the exact inverse of :meth:`apply`."""
        return nib.orientations.apply_orientation(volume, self.backward)


def slice_axis(affine: np.ndarray, shape: tuple[int, ...]) -> int:
    """The axis along which a NIfTI volume's slices most likely lie.

    The only axis of length 1; else the axis whose spacing differs while the other two agree (to 0.1 %); else the axis
    closest to the patient's S/I.

    Args:
        affine: (4, 4), voxel -> RAS mm.
        shape: (x, y, z).

    >>> slice_axis(np.diag([3.0, 0.7, 0.7, 1.0]), (20, 512, 512))
    0
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    spacing = voxel_spacing(affine)

    def same(a: int, b: int) -> bool:
        return bool(abs(spacing[a] - spacing[b]) <= _SAME_SPACING * max(spacing[a], spacing[b]))

    equal = [axis for axis in range(3) if same((axis + 1) % 3, (axis + 2) % 3)]
    if len(equal) == 1:
        return equal[0]
    return int(np.flatnonzero(nib.orientations.io_orientation(affine)[:, 0] == 2)[0])


def slices_last(affine: np.ndarray, shape: tuple[int, ...], *, axis: int | None = None) -> SliceOrder:
    """The order that brings slices last and in-plane axes into the direction of the table above.

    Args:
        affine: (4, 4), voxel -> RAS mm.
        shape: (x, y, z) as stored.
        axis: the stored axis along which slices lie; None finds it with :func:`slice_axis`.

    >>> slices_last(np.diag([0.7, 0.7, 3.0, 1.0]), (512, 512, 20)).codes
    ('L', 'P', 'S')
    """
    axis = slice_axis(affine, shape) if axis is None else axis
    stored = nib.orientations.io_orientation(affine)
    codes = _VIEWS[int(stored[axis, 0])]
    wanted = nib.orientations.axcodes2ornt(codes)
    forward = nib.orientations.ornt_transform(stored, wanted)
    turned_affine = affine @ nib.orientations.inv_ornt_aff(forward, shape)
    return SliceOrder(axis, codes, turned_affine, forward, nib.orientations.ornt_transform(wanted, stored))


def to_slices(volume: np.ndarray, affine: np.ndarray, *, axis: int | None = None) -> tuple[np.ndarray, SliceOrder]:
    """Turn a volume into slices.

    Args:
        volume: (x, y, z) as stored.
        affine: (4, 4), voxel -> RAS mm.
        axis: as for :func:`slices_last`.

    Returns:
        The view (columns, rows, slices), and the order that :func:`from_slices` undoes it with.
    """
    order = slices_last(affine, volume.shape, axis=axis)
    return order.apply(volume), order


def from_slices(volume: np.ndarray, order: SliceOrder) -> np.ndarray:
    """The inverse of :func:`to_slices`: (columns, rows, slices) -> (x, y, z) as stored, exactly."""
    return order.undo(volume)
