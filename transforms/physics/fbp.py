"""Filtered back projection of parallel-beam sinograms: ramp filter with an apodisation, then back projection."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from ._kernels import back_project_rows, run_in_threads
from .geometry import ParallelBeam, PixelSize, check_pixel_size

Apodisation = Literal["ram-lak", "shepp-logan", "cosine", "hann"]
APODISATIONS: tuple[str, ...] = get_args(Apodisation)
"""Names of the apodisations, sharpest first."""


def apodisation_window(relative: np.ndarray, apodisation: str, cutoff: float) -> np.ndarray:
    """The factor on the ramp at a frequency given as a fraction of Nyquist; 1 at 0, 0 above the cut-off.

    With ``u = relative / cutoff``: ram-lak 1, shepp-logan sinc(u/2), cosine cos(pi u/2), hann (1 + cos(pi u))/2.

    Args:
        relative: any shape, frequency over the Nyquist frequency of the detector, 0 to 1.
        apodisation: one of :data:`APODISATIONS`.
        cutoff: fraction of Nyquist at which the window ends. Above 1 the window is cut off by Nyquist before it ends:
            a larger value is a sharper kernel, and every window goes over into ram-lak.

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
def _cached_filter(channels: int, spacing: float, apodisation: str, cutoff: float) -> np.ndarray:
    length = 2 ** math.ceil(math.log2(2 * channels))
    if 3 * length // 4 >= 2 * channels:
        length = 3 * length // 4
    distance = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * spacing**2)
    odd = distance % 2 == 1
    kernel[odd] = -1 / (np.pi * distance[odd] * spacing) ** 2
    response = spacing * np.fft.rfft(kernel).real
    relative = np.fft.rfftfreq(length) * 2
    result = (response * apodisation_window(relative, apodisation, cutoff)).astype(np.float32)
    result.flags.writeable = False
    return result


def ramp_filter(channels: int, spacing: float, apodisation: str = "hann", cutoff: float = 1.0) -> np.ndarray:
    """Frequency response of the apodised ramp, for the real FFT of a view zero-padded to at least twice its length.

    Built from the band-limited kernel in space, h(0) = 1/(4 d^2), h(n odd) = -1/(pi n d)^2, h(n even) = 0: sampling
    |f| instead would set the mean of each view to 0, and the image would be shifted.

    Args:
        channels: length of a view.
        spacing: channel spacing d, mm.
        apodisation: "ram-lak", "shepp-logan", "cosine" or "hann".
        cutoff: see :func:`apodisation_window`.

    Returns:
        (length // 2 + 1,) float32 in 1/mm, read-only; about |f| times the window, f in cycles/mm.

    Raises:
        ValueError: for an unknown apodisation, a cut-off, a length or a spacing that is not above 0.

    Source: Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, section 3.3.3, eq. 61.

    >>> ramp_filter(3, 0.5, "ram-lak").round(2)
    array([0.07, 0.32, 0.68, 0.93], dtype=float32)
    """
    if channels < 1 or not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"Expected channels of 1 or more and a spacing above 0 mm but got {channels} and {spacing}.")
    return _cached_filter(int(channels), float(spacing), apodisation, float(cutoff))


def filter_sinogram(sinogram: np.ndarray, spacing: float, apodisation: str = "hann", cutoff: float = 1.0) -> np.ndarray:
    """Each view of a sinogram convolved with the apodised ramp.

    Args:
        sinogram: (views, channels), line integrals.
        spacing: channel spacing, mm.
        apodisation: see :func:`ramp_filter`.
        cutoff: see :func:`apodisation_window`.

    Returns:
        (views, channels) float32, in the sinogram's unit per mm.

    Raises:
        ValueError: see :func:`ramp_filter`.

    >>> filter_sinogram(np.array([[0.0, 1.0, 0.0]]), 1.0, "ram-lak").round(3)
    array([[-0.101,  0.25 , -0.101]], dtype=float32)
    """
    views = np.asarray(sinogram, dtype=np.float32)
    channels = views.shape[-1]
    response = ramp_filter(channels, spacing, apodisation, cutoff)
    length = 2 * (response.size - 1)
    filtered = np.empty_like(views)

    def work(start: int, stop: int) -> None:
        spectrum = np.fft.rfft(views[start:stop], n=length, axis=-1) * response
        filtered[start:stop] = np.fft.irfft(spectrum, n=length, axis=-1)[:, :channels]

    run_in_threads(work, views.shape[0])
    return filtered


def back_project(
    filtered: np.ndarray, geometry: ParallelBeam, shape: tuple[int, int], pixel_mm: PixelSize
) -> np.ndarray:
    """Pixel-driven back projection, linear interpolation between channels, scaled by the angular step pi / views.

    Args:
        filtered: (views, channels), filtered line integrals, 1/mm.
        geometry: the rays that were measured.
        shape: (nx, ny) of the image.
        pixel_mm: (dx, dy) in mm.

    Returns:
        (nx, ny) float32, the unit of ``filtered``. Beyond the detector a view adds 0.

    Raises:
        ValueError: if the sinogram's shape is not the geometry's, or for a pixel size that is not above 0.

    >>> beam = ParallelBeam(views=8, channels=9, channel_spacing_mm=1.0)
    >>> back_project(np.ones((8, 9)), beam, (3, 3), (1.0, 1.0)).round(3)[1, 1]  # pi
    np.float32(3.142)
    """
    pixel = check_pixel_size(pixel_mm)
    values = np.asarray(filtered, dtype=np.float32)
    if values.shape != (geometry.views, geometry.channels):
        raise ValueError(
            f"Expected a sinogram (views, channels) = {(geometry.views, geometry.channels)} but got {values.shape}. "
            "Pass the geometry that it was made with."
        )
    padded = np.pad(values, ((0, 0), (1, 1)))
    angles, spacing = geometry.angles, float(geometry.channel_spacing_mm)
    image = np.zeros(shape, dtype=np.float32)
    run_in_threads(
        lambda start, stop: back_project_rows(padded, angles, pixel, spacing, start, stop, image), image.shape[0]
    )
    image *= np.float32(np.pi / geometry.views)
    return image


def fbp(
    sinogram: np.ndarray,
    geometry: ParallelBeam,
    shape: tuple[int, int],
    pixel_mm: PixelSize,
    *,
    apodisation: str = "hann",
    cutoff: float = 1.0,
) -> np.ndarray:
    """Filtered back projection: :func:`filter_sinogram`, then :func:`back_project`.

    Args:
        sinogram: (views, channels), line integrals without a unit.
        geometry: the rays that were measured.
        shape: (nx, ny) of the image.
        pixel_mm: (dx, dy) in mm.
        apodisation: see :func:`ramp_filter`.
        cutoff: see :func:`apodisation_window`.

    Returns:
        (nx, ny) float32, attenuation in 1/mm.

    Raises:
        ValueError: see :func:`filter_sinogram` and :func:`back_project`.

    >>> beam = ParallelBeam.for_image((32, 32), (1.0, 1.0), views=64)
    >>> chord = 2 * np.sqrt(np.maximum(12.0**2 - beam.positions_mm**2, 0)) * 0.02  # a disc of radius 12 mm, 0.02 / mm
    >>> image = fbp(np.tile(chord, (64, 1)), beam, (32, 32), (1.0, 1.0))
    >>> round(float(image[12:20, 12:20].mean()), 4)
    0.02
    """
    filtered = filter_sinogram(sinogram, geometry.channel_spacing_mm, apodisation, cutoff)
    return back_project(filtered, geometry, shape, pixel_mm)
