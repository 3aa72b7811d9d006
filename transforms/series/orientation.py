"""The network's view of a volume: slices last, in-plane axes in fixed directions; exact, since it only permutes and flips axes.

With axis 0 shown to the right and axis 1 downwards, a slice looks as in a radiologist's viewer:

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
    """The transform from a stored volume to slices, and back.

    Attributes:
        axis: the stored axis along which the slices lie.
        codes: patient directions of the new axes, for example ("L", "P", "S").
        affine: (4, 4) float64, voxel of the reordered volume -> RAS mm.
        forward: (3, 2) nibabel orientation from stored to reordered.
        backward: (3, 2) nibabel orientation from reordered to stored.
    """

    axis: int
    codes: tuple[str, str, str]
    affine: np.ndarray
    forward: np.ndarray
    backward: np.ndarray

    def apply(self, volume: np.ndarray) -> np.ndarray:
        """Reorder (x, y, z) as stored to (columns, rows, slices); returns a view."""
        return nib.orientations.apply_orientation(volume, self.forward)

    def undo(self, volume: np.ndarray) -> np.ndarray:
        """Reorder (columns, rows, slices) to (x, y, z) as stored, the exact inverse of :meth:`apply`; returns a view."""
        return nib.orientations.apply_orientation(volume, self.backward)


def slice_axis(affine: np.ndarray, shape: tuple[int, ...]) -> int:
    """The axis along which the slices of a volume most likely lie.

    It is the only axis of length 1; else the axis whose spacing differs while the other two agree (to 0.1 %); else the axis
    closest to the patient's S/I direction.

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
    """The reordering that puts slices last and the in-plane axes in the directions of the table above.

    Args:
        affine: (4, 4), voxel -> RAS mm.
        shape: (x, y, z) as stored.
        axis: the stored axis along which the slices lie; None determines it with :func:`slice_axis`.

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
        A view (columns, rows, slices), and the order that :func:`from_slices` needs to undo it.
    """
    order = slices_last(affine, volume.shape, axis=axis)
    return order.apply(volume), order


def from_slices(volume: np.ndarray, order: SliceOrder) -> np.ndarray:
    """The exact inverse of :func:`to_slices`: (columns, rows, slices) -> (x, y, z) as stored."""
    return order.undo(volume)
