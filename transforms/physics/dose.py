"""Dose reduction by inserting noise: the closed formula, the noise of one slice, the noise of a volume.

The noise that separates dose ``a`` from full dose is generated in the sinogram, reconstructed on its own and added to the
original image. Filtered back projection is linear, so nothing is resampled, blurred or shifted, and ``a = 1`` changes
nothing.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import numpy as np

from ct_cncl.transforms.anatomy.regions import padding_mask

from ._kernels import run_in_threads
from .counts import added_line_integrals, line_integrals_of_counts, measured_counts
from .fbp import fbp
from .geometry import Geometry, PixelSize, check_pixel_size
from .kernel import apodisation_of, oversampled, shape_noise
from .projections import Projections
from .projector import project
from .settings import MU_WATER_PER_MM, DoseSettings, check_noise_model, relative_incident_photons


def hu_to_attenuation(hu: np.ndarray, mu_water_per_mm: float = MU_WATER_PER_MM) -> np.ndarray:
    """Linear attenuation, ``mu_w (1 + HU / 1000)``, clipped at 0.

    Args:
        hu: any shape, HU.
        mu_water_per_mm: attenuation of water, 1/mm.

    Returns:
        The same shape, float32, 1/mm.

    >>> hu_to_attenuation(np.array([-2000, -1000, 0, 1000]))
    array([0.    , 0.    , 0.0192, 0.0384], dtype=float32)
    """
    attenuation = np.asarray(hu, dtype=np.float32) * np.float32(mu_water_per_mm / 1000) + np.float32(mu_water_per_mm)
    return np.maximum(attenuation, np.float32(0))


def added_noise_variance(
    line_integral: np.ndarray,
    *,
    dose_fraction: float,
    incident_photons: float,
    electronic_variance: float = 0.0,
    noise_free: bool = False,
    relative_incident_photons: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Variance of the noise that makes a ray's line integral look as if measured at dose fraction ``a``.

    A measured line integral has ``var(p) = 1/N + Ne/N^2`` with ``N = N0 exp(-p)`` photons. From full dose to dose a:

        var = (1 - a)/a * e^p/N0 * (1 + (1 + a)/a * Ne * e^p/N0)

    and with ``noise_free=True``, for objects without noise of their own, the whole of it: ``1/(a N) + Ne/(a N)^2``. The
    logarithm of a small count is also biased upwards; that bias is not part of the formula.

    Args:
        line_integral: p, any shape, no unit.
        dose_fraction: a, above 0 and up to 1.
        incident_photons: N0, incident photons at full dose.
        electronic_variance: Ne, photons^2.
        noise_free: whether the object is noise-free (a phantom).
        relative_incident_photons: incident photons of each ray over N0; broadcastable to the line integrals. See
            :func:`~.settings.relative_incident_photons`.

    Returns:
        The same shape, float64, no unit; exactly 0 for a = 1 and ``noise_free=False``.

    Raises:
        ValueError: if a value is outside its range.

    Source: Yu et al. 2012, J Comput Assist Tomogr 36(4):477, eq. 11.

    >>> options = {"dose_fraction": 0.25, "incident_photons": 2e5, "electronic_variance": 100}
    >>> float(added_noise_variance(np.array(5.0), **options).round(6))
    0.003052
    >>> float(added_noise_variance(np.array(5.0), **options, noise_free=True).round(6))  # 0.062^2
    0.003849
    """
    a = dose_fraction
    check_noise_model(a, incident_photons, electronic_variance)
    per_quantum = np.exp(np.asarray(line_integral, dtype=np.float64)) / (incident_photons * relative_incident_photons)
    if noise_free:
        return per_quantum / a * (1 + electronic_variance * per_quantum / a)
    return (1 - a) / a * per_quantum * (1 + (1 + a) / a * electronic_variance * per_quantum)


def check_hu(hu: np.ndarray, axes: int) -> np.ndarray:
    """Return ``hu`` as an array, or refuse it if it cannot be in HU.

    Args:
        hu: HU.
        axes: expected number of axes.

    Raises:
        ValueError: for another number of axes, an empty array, NaN or infinity, or if no value is below 0 HU.

    >>> check_hu([[-1000, 40]], axes=2).shape
    (1, 2)
    """
    hu = np.asarray(hu)
    if hu.ndim != axes or hu.size == 0:
        form = "(x, y)" if axes == 2 else "(x, y, z)"
        raise ValueError(f"Expected HU with axes {form}, none of length 0, but got shape {hu.shape}.")
    if not np.isfinite(hu).all():
        bad = int(hu.size - np.isfinite(hu).sum())
        raise ValueError(
            f"Expected finite HU but got {bad} NaN or infinite voxels. Replace them; for padding use -1024."
        )
    check_lowest(float(hu.min()), float(hu.max()))
    return hu


def check_lowest(low: float, high: float) -> None:
    """Raise a ValueError if the lowest value of a volume is 0 or above: with air around the body, HU go below 0."""
    if low >= 0:
        raise ValueError(
            f"Expected HU, where air is about -1000, but got values from {low:g} to {high:g}, never below 0. "
            "These look like stored values before rescaling, or an image scaled for display. Apply RescaleSlope and "
            "RescaleIntercept (HU = slope * stored + intercept), or give the original CT."
        )


def noise_image(
    hu_slice: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    rng: np.random.Generator,
    *,
    noise_free: bool = False,
) -> np.ndarray:
    """Noise to add to one slice: project the slice, draw noise for each ray, reconstruct it.

    Args:
        hu_slice: (x, y), HU. Everything outside the slice counts as air.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        rng: source of the random numbers.
        noise_free: see :func:`added_noise_variance`.

    Returns:
        (x, y) float32, HU, mean 0 except for the bias of photon counts; all 0 for a dose fraction of 1 unless ``noise_free``.

    Raises:
        ValueError: for what :func:`check_hu` refuses, or a missing pixel size.

    >>> slice_hu = np.pad(np.zeros((16, 16)), 8, constant_values=-1000.0)
    >>> noise = noise_image(slice_hu, (1.0, 1.0), DoseSettings(views=32), np.random.default_rng(0))
    >>> noise.shape, noise.dtype, bool(abs(noise.mean()) < noise.std())
    ((32, 32), dtype('float32'), True)
    """
    hu = check_hu(hu_slice, axes=2)
    pixel = check_pixel_size(pixel_mm)
    if settings.dose_fraction == 1 and not noise_free:
        return np.zeros(hu.shape, dtype=np.float32)
    p = project(hu_to_attenuation(hu, settings.mu_water_per_mm), pixel, _rays(hu, pixel, settings))
    return _noise(p, hu, pixel, settings, rng, noise_free=noise_free)


def _rays(hu: np.ndarray, pixel: PixelSize, settings: DoseSettings) -> Geometry:
    return settings.rays((hu.shape[0], hu.shape[1]), pixel)


def _noise(
    p: np.ndarray,
    hu: np.ndarray,
    pixel: PixelSize,
    settings: DoseSettings,
    rng: np.random.Generator,
    *,
    noise_free: bool,
) -> np.ndarray:
    """Noise of a slice from its line integrals p (views, channels)."""
    geometry = _rays(hu, pixel, settings)
    if settings.kernel_gain and settings.route == "formula":
        # Not for photon counts: photon-starvation correction depends on the count of each real channel.
        geometry, factor = oversampled(geometry, pixel)
        p = np.repeat(p, factor, axis=1)
        settings = dataclasses.replace(
            settings,
            incident_photons=settings.incident_photons / factor,
            electronic_variance=settings.electronic_variance / factor,
        )
    return _reconstruct(_added(p, geometry, settings, rng, noise_free), geometry, hu, pixel, settings)


def _added(
    p: np.ndarray, geometry: Geometry, settings: DoseSettings, rng: np.random.Generator, noise_free: bool
) -> np.ndarray:
    """Noise to add to the line integrals p (views, channels)."""
    relative = relative_incident_photons(p, geometry, settings)
    a, electronic = settings.dose_fraction, settings.electronic_variance
    if settings.route == "photon_counts":
        if not noise_free:
            return added_line_integrals(p, settings.incident_photons * relative, settings, rng)
        incident = a * settings.incident_photons * relative
        return line_integrals_of_counts(measured_counts(p, incident, electronic, rng), incident, settings) - p
    variance = added_noise_variance(
        p,
        dose_fraction=a,
        incident_photons=settings.incident_photons,
        electronic_variance=electronic,
        noise_free=noise_free,
        relative_incident_photons=relative,
    )
    return np.sqrt(variance).astype(np.float32) * rng.standard_normal(p.shape, dtype=np.float32)


def _reconstruct(
    sinogram: np.ndarray, geometry: Geometry, hu: np.ndarray, pixel: PixelSize, settings: DoseSettings
) -> np.ndarray:
    shape = (hu.shape[0], hu.shape[1])
    name, cutoff = settings.apodisation, settings.cutoff
    if settings.kernel_gain:
        name, cutoff = apodisation_of(geometry, pixel)
    noise = fbp(sinogram, geometry, shape, pixel, apodisation=name, cutoff=cutoff)
    noise *= np.float32(1000 / settings.mu_water_per_mm)
    if settings.kernel_gain:
        gain, step = np.asarray(settings.kernel_gain), settings.kernel_gain_step_per_mm
        noise = shape_noise(noise, pixel, geometry, gain, step)
    return noise


def slice_generator(seed: int, index: int) -> np.random.Generator:
    """Random generator of slice ``index``: it depends on seed and index alone, not on earlier draws.

    >>> bool(slice_generator(1, 7).random() == slice_generator(1, 7).random())
    True
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def noise_of_slice(
    hu_slice: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    seed: int,
    index: int,
    *,
    noise_free: bool = False,
    projections: Projections | None = None,
) -> np.ndarray:
    """:func:`noise_image` for slice ``index`` of a volume checked as a whole: a single slice may contain no air.

    Args:
        hu_slice: (x, y), HU.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: of the volume, 0 or above.
        index: of the slice in its volume.
        noise_free: see :func:`added_noise_variance`.
        projections: line integrals of the volume, kept for several noise realizations.

    Returns:
        (x, y) float32, HU.
    """
    attenuation = hu_to_attenuation(hu_slice, settings.mu_water_per_mm)
    rays = _rays(hu_slice, pixel_mm, settings)
    if projections is None:
        p = project(attenuation, pixel_mm, rays)
    else:
        p = projections.of(index, attenuation, pixel_mm, rays)
    return _noise(p, hu_slice, pixel_mm, settings, slice_generator(seed, index), noise_free=noise_free)


def insert_noise(
    hu_volume: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    seed: int,
    *,
    noise_free: bool = False,
    progress: Callable[[int, int], None] | None = None,
    projections: Projections | None = None,
) -> np.ndarray:
    """Volume as it would look at a lower dose: the input plus :func:`noise_image`, slice by slice.

    Slices have independent noise, whatever the order in which they are computed. A sub-volume that starts at slice 0 gets the
    same noise as in the whole volume; for other parts use :func:`noise_image` with :func:`slice_generator`.

    Args:
        hu_volume: (x, y, z), HU.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: 0 or above; the same seed gives the same noise.
        noise_free: True for phantoms, see :func:`added_noise_variance`.
        progress: called with (slices done, slices in all) after each slice.
        projections: line integrals of this volume, kept for several noise realizations; they do not change the result.

    Returns:
        (x, y, z) float32, HU, neither clipped nor rounded; padding (:func:`~..regions.padding_mask`) unchanged. For a
        dose fraction of 1, unless ``noise_free``, a copy of the input in its own dtype.

    Raises:
        ValueError: for what :func:`check_hu` refuses, a missing pixel size or a negative seed.

    >>> volume = np.pad(np.zeros((16, 16, 2)), ((8, 8), (8, 8), (0, 0)), constant_values=-1000.0)
    >>> low = insert_noise(volume, (1.0, 1.0), DoseSettings(views=32), seed=0)
    >>> low.shape, low.dtype
    ((32, 32, 2), dtype('float32'))
    """
    hu = check_hu(hu_volume, axes=3)
    pixel = check_pixel_size(pixel_mm)
    check_seed(seed)
    if settings.dose_fraction == 1 and not noise_free:
        return hu.copy()
    padding = padding_mask(hu)
    result = hu.astype(np.float32)

    def add(z: int) -> None:
        noise = noise_of_slice(result[..., z], pixel, settings, seed, z, noise_free=noise_free, projections=projections)
        result[..., z] += np.where(padding[..., z], np.float32(0), noise)

    _each_slice(add, hu.shape[2], progress)
    return result


def check_seed(seed: int) -> None:
    """Raise a ValueError for a seed below 0."""
    if seed < 0:
        raise ValueError(f"Expected a seed of 0 or above but got {seed}.")


def _each_slice(work: Callable[[int], None], count: int, progress: Callable[[int, int], None] | None) -> None:
    """Call ``work(z)`` for each slice, several at a time; calls of ``progress`` never overlap."""
    lock, done = threading.Lock(), 0

    def block(start: int, stop: int) -> None:
        nonlocal done
        for z in range(start, stop):
            work(z)
            with lock:
                done += 1
                if progress is not None:
                    progress(done, count)

    # Blocks of one slice: memory holds one slice per thread, and progress is reported steadily.
    run_in_threads(block, count, blocks_per_thread=count)
