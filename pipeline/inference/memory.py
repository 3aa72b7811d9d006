"""Volumes in memory: their slices, their geometry if they have one, and the conversion back to their type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ct_cncl.transforms.series import ScanError, SliceOrder, slices_last
from ct_cncl.transforms.series.scan import check_affine

_AXES = ("xyz", "zyx", "yxz")
"""Accepted axis orders of an array: x runs along the columns, y along the rows, z through the slices."""
_AS_DISPLAYED = np.diag([-1.0, -1.0, 1.0, 1.0])
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""LPS to RAS, or back."""
_NO_CT_HU = 2.0
"""In a CT volume, the values span more than this many HU."""
_ASK = "Pass axes='xyz' for (columns, rows, slices), as in NIfTI and MONAI, or axes='zyx' for (slices, rows, columns), as in SimpleITK."


@dataclass(frozen=True, eq=False)
class Given:
    """A volume as the caller passed it.

    Attributes:
        array: the values, (x, y, z), as a view.
        order: how the slices lie in the array.
        has_geometry: whether the volume states its spacing and directions.
        back: converts (x, y, z) values to the kind of volume that was given, without changing their data type.
    """

    array: np.ndarray
    order: SliceOrder
    has_geometry: bool
    back: Callable[[np.ndarray], Any]

    @property
    def slices(self) -> np.ndarray:
        """The values as (columns, rows, slices), a view."""
        return self.order.apply(self.array)

    def like(self, slices: np.ndarray) -> Any:
        """A volume like the given one, with other values (columns, rows, slices)."""
        return self.back(self.order.undo(slices))


def given(volume: Any, axes: str | None = None) -> Given:
    """Accept a volume: a NumPy array, a tensor, a MetaTensor or a SimpleITK image.

    Args:
        volume: HU with three axes; arrays and tensors may have a leading channel axis of length 1, as in MONAI.
        axes: the order of an array's axes, one of :data:`_AXES`; None infers it from the shape if that is unambiguous. A volume with
            geometry (SimpleITK, or a MetaTensor with an affine) states its order itself.

    Raises:
        TypeError: the volume has another type.
        ValueError: the shape or the values are not those of a CT volume in HU, or the shape does not show the order of the axes.
    """
    if axes is not None and axes not in _AXES:
        raise ValueError(f"Expected axes to be one of {', '.join(_AXES)}, but got {axes!r}.")
    if type(volume).__module__.partition(".")[0] == "SimpleITK":
        found = _of_simpleitk(volume, axes)
    elif isinstance(volume, torch.Tensor):
        found = _of_tensor(volume, axes)
    elif isinstance(volume, np.ma.MaskedArray):
        raise TypeError(
            "Expected an array without a mask, but got a masked one. Fill it, for example with volume.filled(-1024)."
        )
    elif isinstance(volume, np.ndarray):
        found = _of_array(np.asarray(volume), axes, lambda result: result)
    else:
        raise TypeError(
            "Expected a NumPy array, a tensor, a MONAI MetaTensor, a SimpleITK image, or a path with out=FOLDER, but got "
            f"{type(volume).__name__}. Pass its HU as an array."
        )
    _check_hu(found.array)
    return found


def _of_array(array: np.ndarray, axes: str | None, finish: Callable[[np.ndarray], Any]) -> Given:
    """Take an array without geometry. Columns are taken to run to the right and rows downwards, as displayed."""
    channel = array.ndim == 4 and array.shape[0] == 1
    own = array[0] if channel else array
    _check_kind(own, array.shape)
    names = axes or _axes_of(own.shape)
    to_xyz = tuple(names.index(axis) for axis in "xyz")
    from_xyz = tuple("xyz".index(axis) for axis in names)

    def back(result: np.ndarray) -> Any:
        turned = np.ascontiguousarray(result.transpose(from_xyz))
        return finish(turned[None] if channel else turned)

    turned = own.transpose(to_xyz)
    return Given(turned, slices_last(_AS_DISPLAYED, turned.shape, axis=2), has_geometry=False, back=back)


def _of_tensor(tensor: torch.Tensor, axes: str | None) -> Given:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        kind = "quantized" if tensor.is_quantized else tensor.device if tensor.device.type == "meta" else tensor.layout
        raise ValueError(
            f"Expected a dense tensor that holds a number for each voxel, but got a {kind} one. Convert it."
        )
    plain = tensor.detach().cpu()
    plain = plain.as_subclass(torch.Tensor)
    array = (plain.float() if tensor.dtype is torch.bfloat16 else plain).numpy()

    def like(result: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(np.ascontiguousarray(result))
        if tensor.dtype is torch.bfloat16:
            values = values.to(tensor.dtype)
        copy = tensor.detach().clone().to(values.dtype)  # keeps the metadata of a MetaTensor
        copy.copy_(values.to(tensor.device))
        return copy

    affine = _affine_of(tensor)
    if affine is None:
        return _of_array(array, axes, like)
    channel = array.ndim == 4 and array.shape[0] == 1
    own = array[0] if channel else array
    _check_kind(own, array.shape)
    if axes not in (None, "xyz"):
        raise ValueError(
            f"Expected axes 'xyz', as this volume's affine has them, but got {axes!r}. Omit axes: the affine says how the slices lie."
        )
    _check_geometry(affine)

    def back(result: np.ndarray) -> Any:
        return like(result[None] if channel else result)

    return Given(own, slices_last(affine, own.shape), has_geometry=True, back=back)


def _affine_of(tensor: torch.Tensor) -> np.ndarray | None:
    """The voxel -> RAS mm affine of a MetaTensor; None if it has none, or only MONAI's default, the identity."""
    affine, meta = getattr(tensor, "affine", None), getattr(tensor, "meta", None)
    if affine is None or not isinstance(meta, dict):
        return None
    own = np.asarray(affine, dtype=np.float64)
    if own.shape != (4, 4):
        raise ValueError(
            f"Expected a 4 x 4 affine of one volume, but got {' x '.join(map(str, own.shape))}. Pass volumes one by one."
        )
    if np.array_equal(own, np.eye(4)) and "original_affine" not in meta:
        return None
    return _FLIP @ own if str(meta.get("space", "RAS")).upper().endswith("LPS") else own


def _of_simpleitk(image: Any, axes: str | None) -> Given:
    import SimpleITK

    if axes is not None:
        raise ValueError(
            f"Expected no axes for a SimpleITK image, which states its own geometry, but got {axes!r}. Omit axes."
        )
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"Expected a SimpleITK image with 3 axes and one number per voxel, but got {image.GetDimension()} axes and "
            f"{image.GetNumberOfComponentsPerPixel()} numbers. Join slices with SimpleITK.JoinSeries, or pass volumes one by one."
        )
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    _check_kind(array, image.GetSize())
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine = _FLIP @ affine
    _check_geometry(affine)

    def back(result: np.ndarray) -> Any:
        made = SimpleITK.GetImageFromArray(np.ascontiguousarray(result.transpose(2, 1, 0)))
        made.CopyInformation(image)
        for key in image.GetMetaDataKeys():
            made.SetMetaData(key, image.GetMetaData(key))
        return made

    return Given(array, slices_last(affine, array.shape), has_geometry=True, back=back)


def _axes_of(shape: tuple[int, ...]) -> str:
    """Infer the order of the axes from the shape: slices are square, or far fewer than their rows and columns.

    Raises:
        ValueError: the shape is ambiguous.

    >>> _axes_of((512, 512, 40)), _axes_of((40, 512, 512)), _axes_of((37, 45, 3))
    ('xyz', 'zyx', 'xyz')
    """
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return "xyz" if first == middle else "zyx"
    if first != last:
        least = min(shape)
        if 2 * least <= sorted(shape)[1] and middle != least:
            return "xyz" if last == least else "zyx"
    raise ValueError(f"Expected a shape that shows which axis runs through the slices, but {shape} does not. {_ASK}")


def _check_kind(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.ndim != 3:
        raise ValueError(
            f"Expected a volume with three axes, or four with one channel first, but got shape {tuple(shape)}. "
            + _advice(tuple(shape))
        )
    if array.size == 0:
        raise ValueError(f"Expected a volume with voxels, but got shape {tuple(shape)}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"Expected one real number per voxel, in HU, but got {array.dtype}. Convert the volume, for example to float32."
        )


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "Give a single slice a third axis: pass volume[..., None]."
    if len(shape) == 4 and shape[-1] == 1:
        return "The channel comes last here: pass volume[..., 0]."
    if len(shape) == 4:
        return f"Pass the {shape[0]} volumes one by one: volume[k]."
    if len(shape) == 5:
        return "Pass the volumes of the batch one by one: batch[k]."
    return "Pass one volume."


def _check_geometry(affine: np.ndarray) -> None:
    try:
        check_affine(affine, Path("volume"))
    except ScanError as error:
        raise ValueError(
            f"Expected an affine that puts each voxel at a different position, but got {affine.tolist()}. Correct it."
        ) from error


def _check_hu(array: np.ndarray) -> None:
    """Refuse values that are not HU, as for files."""
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(
            f"Expected finite HU, but got {bad} NaN or infinite voxels. Replace them (with -1024 HU outside the field of view)."
        )
    low, high = float(array.min()), float(array.max())
    if high > low and (low >= 0 or high - low <= _NO_CT_HU):
        looks = (
            f"an image scaled to {low:g}..{high:g}: undo the scaling"
            if high - low <= _NO_CT_HU
            else "stored values without rescale: apply slope and intercept (HU = value * slope + intercept)"
        )
        raise ValueError(
            f"Expected HU, where air is about -1000, but got values from {low:g} to {high:g}, which looks like {looks}."
        )
