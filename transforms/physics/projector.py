"""Forward projection: line integrals of an image along the rays of a geometry."""

from __future__ import annotations

import math
import sys
from typing import Any, TypeVar

import numpy as np

from ._kernels import project_views, run_in_threads
from .geometry import FanBeam, Geometry, PixelSize, check_pixel_size

Image = TypeVar("Image")
"""A numpy array or a torch tensor; results are of the same kind."""


def project(image: Image, pixel_mm: PixelSize, geometry: Geometry) -> Image:
    """Line integrals by Joseph's method: steps along a ray's dominant axis, linear interpolation across it.

    Numpy arrays go through compiled code on the CPU's cores. Torch tensors go through torch, on their device, with any
    number of leading axes at once, and can be differentiated: the gradient is the exact adjoint.

    Args:
        image: numpy (x, y), or torch (..., x, y); real, values per mm (attenuation 1/mm gives line integrals without a
            unit). It is 0 outside the array.
        pixel_mm: (dx, dy) in mm; the two may differ.
        geometry: the rays; its isocentre is the image centre.

    Returns:
        Sinogram (views, channels) or (..., views, channels), float32 (torch: the image's dtype), the image's unit times
        mm. The two backends agree to 1e-4 of the maximum.

    Raises:
        ValueError: if a numpy image is not two-dimensional, the pixel size is not above 0, or a fan's source lies inside
            the image.

    Source: Joseph 1982, IEEE Trans Med Imaging 1(3):192.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> beam = ParallelBeam(views=2, channels=3, channel_spacing_mm=2.0)
    >>> project(np.full((3, 3), 0.1), (2.0, 1.0), beam)  # 3 pixels of 1 mm along y, then 3 of 2 mm along x
    array([[0.3, 0.3, 0.3],
           [0. , 0.6, 0. ]], dtype=float32)
    """
    pixel = check_pixel_size(pixel_mm)
    if is_tensor(image):
        from .torch_backend import project_tensor

        return project_tensor(image, pixel, geometry)  # type: ignore[arg-type,return-value]
    return _project_array(np.asarray(image), pixel, geometry)  # type: ignore[return-value]


def _project_array(image: np.ndarray, pixel: PixelSize, geometry: Geometry) -> np.ndarray:
    if image.ndim != 2:
        raise ValueError(f"Expected one slice (x, y) but got shape {image.shape}. Project a volume slice by slice.")
    check_source_outside((image.shape[0], image.shape[1]), pixel, geometry)
    pixels = image.astype(np.float32, copy=False)
    along_x = np.pad(pixels, ((0, 0), (1, 1)))
    along_y = np.ascontiguousarray(np.pad(pixels, ((1, 1), (0, 0))).T)
    angles, fan_angles, positions = geometry.angles, geometry.fan_angles, geometry.positions_mm
    sinogram = np.zeros((geometry.views, geometry.channels), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        project_views(along_y, along_x, angles, fan_angles, positions, pixel, start, stop, sinogram)

    run_in_threads(work, geometry.views)
    return sinogram


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; does not import torch if nothing else has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def check_source_outside(shape: tuple[int, int], pixel: PixelSize, geometry: Geometry) -> None:
    """Raise a ValueError for an image (nx, ny) that reaches as far as the source of a fan."""
    if not isinstance(geometry, FanBeam):
        return
    reach = math.hypot(shape[0] * pixel[0], shape[1] * pixel[1]) / 2
    if reach >= geometry.source_isocentre_mm:
        raise ValueError(
            f"Expected an image within {geometry.source_isocentre_mm:g} mm of the isocentre, where the source turns, but got "
            f"one that reaches {reach:.0f} mm. Check the pixel size, or use a parallel beam."
        )
