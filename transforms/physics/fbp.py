"""Filtered back projection: ramp filter with an apodisation, then back projection, for every geometry.

Fan beams are reconstructed from a full turn without rebinning (Kak and Slaney 1988, sections 3.4.1 and 3.4.2).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from ._kernels import back_project_fan_rows, back_project_rows, run_in_threads
from .geometry import FanBeam, Geometry, PixelSize, check_pixel_size
from .projector import Image, check_source_outside, is_tensor

Apodisation = Literal["ram-lak", "shepp-logan", "cosine", "hann"]
APODISATIONS: tuple[str, ...] = get_args(Apodisation)
"""Names of the apodisations, sharpest first."""


def apodisation_window(relative: np.ndarray, apodisation: str, cutoff: float) -> np.ndarray:
    """Factor by which the ramp is multiplied at each frequency: 1 at 0, and 0 above the cut-off.

    With ``u = relative / cutoff``: ram-lak 1, shepp-logan sinc(u/2), cosine cos(pi u/2), hann (1 + cos(pi u))/2.

    Args:
        relative: any shape, frequency over the Nyquist frequency of the detector, 0 to 1.
        apodisation: one of :data:`APODISATIONS`.
        cutoff: fraction of Nyquist at which the window ends. Above 1 the window is cut off by Nyquist before it ends:
            a larger value gives a sharper kernel, and every window approaches ram-lak.

    Returns:
        The same shape, float64, 0 to 1.

    Raises:
        ValueError: for an unknown name or a cut-off that is not finite and above 0.

    >>> apodisation_window(np.array([0.0, 0.5, 1.0]), "hann", 1.0).round(3)
    array([1. , 0.5, 0. ])
    """
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(
            f"Expected a cut-off above 0, as a fraction of Nyquist, but got {cutoff}. Use 1.0 for Nyquist."
        )
    u = np.asarray(relative, dtype=float) / cutoff
    if apodisation == "ram-lak":
        window = np.ones_like(u)
    elif apodisation == "shepp-logan":
        window = np.sinc(u / 2)
    elif apodisation == "cosine":
        window = np.cos(np.pi * u / 2)
    elif apodisation == "hann":
        window = 0.5 * (1 + np.cos(np.pi * u))
    else:
        raise ValueError(f"Expected an apodisation out of {', '.join(APODISATIONS)} but got {apodisation!r}.")
    return np.where(u <= 1, window, 0.0)


@lru_cache(maxsize=64)
def _cached_filter(channels: int, spacing: float, apodisation: str, cutoff: float, curved: bool) -> np.ndarray:
    length = 2 ** math.ceil(math.log2(2 * channels))
    if 3 * length // 4 >= 2 * channels:
        length = 3 * length // 4
    distance = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * spacing**2)
    odd = (distance % 2 == 1) & (distance < channels)
    step = np.sin(distance[odd] * spacing) if curved else distance[odd] * spacing
    kernel[odd] = -1 / (np.pi * step) ** 2
    response = spacing * np.fft.rfft(kernel).real
    relative = np.fft.rfftfreq(length) * 2
    result = (response * apodisation_window(relative, apodisation, cutoff)).astype(np.float32)
    result.flags.writeable = False
    return result


def ramp_filter(
    channels: int, spacing: float, apodisation: str = "hann", cutoff: float = 1.0, *, curved: bool = False
) -> np.ndarray:
    """Frequency response of the apodised ramp, for the real FFT of a view zero-padded to at least twice its length.

    Built from the band-limited kernel in space, h(0) = 1/(4 d^2), h(n odd) = -1/(pi n d)^2, h(n even) = 0: sampling |f|
    instead would set the mean of each view to 0 and shift all HU.

    Args:
        channels: length of a view.
        spacing: channel spacing d, mm; radian for a curved detector.
        apodisation: "ram-lak", "shepp-logan", "cosine" or "hann".
        cutoff: see :func:`apodisation_window`.
        curved: take the kernel of an equiangular fan, h(n) (n d / sin(n d))^2.

    Returns:
        (length // 2 + 1,) float32 in 1/mm (1/radian), read-only; about |f| times the window, f in cycles/mm.

    Raises:
        ValueError: for an unknown apodisation, or a cut-off, length or spacing that is not above 0.

    Source: Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, section 3.3.3, eq. 61;
        section 3.4.1, eq. 92.

    >>> ramp_filter(3, 0.5, "ram-lak").round(2)
    array([0.09, 0.3 , 0.7 , 0.91], dtype=float32)
    """
    if channels < 1 or not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"Expected channels of 1 or more and a spacing above 0 mm but got {channels} and {spacing}.")
    return _cached_filter(int(channels), float(spacing), apodisation, float(cutoff), curved)


def filter_sinogram(sinogram: Image, geometry: Geometry, apodisation: str = "hann", cutoff: float = 1.0) -> Image:
    """Convolve each view of a sinogram with the apodised ramp, weighted as its geometry requires.

    Before that, views of a fan are weighted with cos(gamma) and a power of the distance from source to isocentre.

    Args:
        sinogram: numpy (views, channels) or torch (..., views, channels), line integrals.
        geometry: the rays that were measured.
        apodisation: see :func:`ramp_filter`.
        cutoff: as a fraction of the detector's Nyquist frequency, see :func:`apodisation_window`.

    Returns:
        The same shape, float32 (torch: the sinogram's dtype), for :func:`back_project`: in the sinogram's unit per mm for
        parallel beams, times mm for fan beams, which are then divided by the squared distance from the source.

    Raises:
        ValueError: see :func:`ramp_filter`, or if the sinogram's shape is not the geometry's.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> filter_sinogram(np.array([[0.0, 1.0, 0.0]]), ParallelBeam(1, 3, 1.0), "ram-lak").round(3)
    array([[-0.101,  0.25 , -0.101]], dtype=float32)
    """
    _check_sinogram(sinogram, geometry)
    before, response = _weight_and_filter(geometry, apodisation, cutoff)
    if is_tensor(sinogram):
        from .torch_backend import filter_tensor

        return filter_tensor(sinogram, before, response)  # type: ignore[arg-type,return-value]
    views = np.asarray(sinogram, dtype=np.float32)
    length = 2 * (response.size - 1)
    filtered = np.empty_like(views)
    weighted = isinstance(geometry, FanBeam)

    def work(start: int, stop: int) -> None:
        part = views[start:stop] * before if weighted else views[start:stop]
        spectrum = np.fft.rfft(part, n=length, axis=-1) * response
        filtered[start:stop] = np.fft.irfft(spectrum, n=length, axis=-1)[:, : views.shape[1]]

    run_in_threads(work, views.shape[0])
    return filtered  # type: ignore[return-value]


def _weight_and_filter(geometry: Geometry, apodisation: str, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight of each channel before filtering, float32 (channels,), and the filter's frequency response."""
    if not isinstance(geometry, FanBeam):
        response = ramp_filter(geometry.channels, geometry.channel_spacing_mm, apodisation, cutoff)
        return np.ones(geometry.channels, dtype=np.float32), response
    source = geometry.source_isocentre_mm
    if geometry.detector == "curved":
        spacing, scale = geometry.channel_spacing_mm / geometry.source_detector_mm, source
    else:
        spacing, scale = geometry.isocentre_spacing_mm, source**2
    response = ramp_filter(geometry.channels, spacing, apodisation, cutoff, curved=geometry.detector == "curved")
    return (scale * np.cos(geometry.fan_angles)).astype(np.float32), response


def _check_sinogram(sinogram: Image, geometry: Geometry) -> None:
    shape = tuple(sinogram.shape) if is_tensor(sinogram) else np.asarray(sinogram).shape  # type: ignore[attr-defined]
    expected = (geometry.views, geometry.channels)
    if shape[-2:] != expected or (len(shape) != 2 and not is_tensor(sinogram)):
        raise ValueError(
            f"Expected a sinogram (views, channels) = {expected} but got {shape}. Pass the geometry that it was made with."
        )


def back_project(filtered: Image, geometry: Geometry, shape: tuple[int, int], pixel_mm: PixelSize) -> Image:
    """Pixel-driven back projection with linear interpolation between channels, scaled by pi / views.

    For parallel beams that is the angular step; for fan beams it is half the angular step, because a full turn measures every
    ray twice. Fan views are weighted with 1 / distance^2 from the source (flat detectors: along the central ray).

    Args:
        filtered: numpy (views, channels) or torch (..., views, channels), from :func:`filter_sinogram`.
        geometry: the rays that were measured.
        shape: (nx, ny) of the image.
        pixel_mm: (dx, dy) in mm.

    Returns:
        (nx, ny) float32, or torch (..., nx, ny), in 1/mm for line integrals without a unit. A view adds 0 to pixels that
        its detector does not cover.

    Raises:
        ValueError: if the sinogram's shape is not the geometry's, for a pixel size that is not above 0, or if a fan's
            source lies inside the image.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> beam = ParallelBeam(views=8, channels=9, channel_spacing_mm=1.0)
    >>> back_project(np.ones((8, 9)), beam, (3, 3), (1.0, 1.0)).round(3)[1, 1]  # pi
    np.float32(3.142)
    """
    pixel = check_pixel_size(pixel_mm)
    _check_sinogram(filtered, geometry)
    check_source_outside(shape, pixel, geometry)
    if is_tensor(filtered):
        from .torch_backend import back_project_tensor

        return back_project_tensor(filtered, geometry, shape, pixel)  # type: ignore[arg-type,return-value]
    behind = 2 if isinstance(geometry, FanBeam) else 1
    padded = np.pad(np.asarray(filtered, dtype=np.float32), ((0, 0), (1, behind)))
    angles = geometry.angles
    image = np.zeros(shape, dtype=np.float32)

    def work(start: int, stop: int) -> None:
        if isinstance(geometry, FanBeam):
            per_mm = geometry.source_detector_mm / geometry.channel_spacing_mm
            source, curved = float(geometry.source_isocentre_mm), geometry.detector == "curved"
            back_project_fan_rows(padded, angles, pixel, source, per_mm, curved, start, stop, image)
        else:
            back_project_rows(padded, angles, pixel, float(geometry.channel_spacing_mm), start, stop, image)

    run_in_threads(work, shape[0])
    image *= np.float32(np.pi / geometry.views)
    return image  # type: ignore[return-value]


def fbp(
    sinogram: Image,
    geometry: Geometry,
    shape: tuple[int, int],
    pixel_mm: PixelSize,
    *,
    apodisation: str = "hann",
    cutoff: float = 1.0,
) -> Image:
    """Filtered back projection: :func:`filter_sinogram`, then :func:`back_project`.

    Args:
        sinogram: numpy (views, channels) or torch (..., views, channels), line integrals without a unit.
        geometry: the rays that were measured.
        shape: (nx, ny) of the image.
        pixel_mm: (dx, dy) in mm.
        apodisation: see :func:`ramp_filter`.
        cutoff: see :func:`apodisation_window`.

    Returns:
        (nx, ny) float32, or torch (..., nx, ny), attenuation in 1/mm.

    Raises:
        ValueError: see :func:`filter_sinogram` and :func:`back_project`.

    >>> from ct_cncl.transforms.physics import ParallelBeam
    >>> beam = ParallelBeam.for_image((32, 32), (1.0, 1.0), views=64)
    >>> chord = 2 * np.sqrt(np.maximum(12.0**2 - beam.positions_mm**2, 0)) * 0.02  # a disc of radius 12 mm, 0.02 / mm
    >>> image = fbp(np.tile(chord, (64, 1)), beam, (32, 32), (1.0, 1.0))
    >>> round(float(image[12:20, 12:20].mean()), 4)
    0.02
    """
    filtered = filter_sinogram(sinogram, geometry, apodisation, cutoff)
    return back_project(filtered, geometry, shape, pixel_mm)
