"""Forward projection: line integrals of an image along the rays of a geometry."""

from __future__ import annotations

import numpy as np

from ._kernels import project_views, run_in_threads
from .geometry import ParallelBeam, PixelSize, check_pixel_size


def project(image: np.ndarray, pixel_mm: PixelSize, geometry: ParallelBeam) -> np.ndarray:
    """Line integrals by Joseph's method: linear interpolation along the axis of which a ray crosses more pixels.

    Args:
        image: (x, y), real, values per mm (attenuation 1/mm gives line integrals without a unit). Outside it is 0.
        pixel_mm: (dx, dy) in mm; the two may differ.
        geometry: the rays; its isocentre is the image centre.

    Returns:
        Sinogram (views, channels), float32, the image's unit times mm.

    Raises:
        ValueError: if the image is not two-dimensional or the pixel size is not above 0.

    Source: Joseph 1982, IEEE Trans Med Imaging 1(3):192.

    >>> beam = ParallelBeam(views=2, channels=3, channel_spacing_mm=2.0)
    >>> project(np.full((3, 3), 0.1), (2.0, 1.0), beam)  # 3 pixels of 1 mm along y, then 3 of 2 mm along x
    array([[0.3, 0.3, 0.3],
           [0. , 0.6, 0. ]], dtype=float32)
    """
    pixel = check_pixel_size(pixel_mm)
    image = np.asarray(image)
    if image.ndim != 2:
        raise ValueError(f"Expected one slice (x, y) but got shape {image.shape}. Project a volume slice by slice.")
    pixels = image.astype(np.float32, copy=False)
    along_x = np.pad(pixels, ((0, 0), (1, 1)))
    along_y = np.ascontiguousarray(np.pad(pixels, ((1, 1), (0, 0))).T)
    angles, first_mm = geometry.angles, float(geometry.positions_mm[0])
    sinogram = np.zeros((geometry.views, geometry.channels), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        spacing = float(geometry.channel_spacing_mm)
        project_views(along_y, along_x, angles, pixel, first_mm, spacing, start, stop, sinogram)

    run_in_threads(work, geometry.views)
    return sinogram
