"""Dose reduction by inserting noise: the closed formula, the noise of one slice, the noise of a volume.

The noise that separates dose ``a`` from full dose is made in the sinogram, reconstructed by itself and added to the
original image. Filtered back projection is linear, so nothing is resampled, blurred or shifted, and ``a = 1`` changes
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import numpy as np

from ct_cncl.transforms.regions import padding_mask

from .fbp import apodisation_window, fbp
from .geometry import ParallelBeam, PixelSize, check_pixel_size
from .projector import project

MU_WATER_PER_MM = 0.0192
"""Linear attenuation of water at 70 keV, the effective energy of 120 kVp, 1/mm."""


@dataclass(frozen=True)
class DoseSettings:
    """What determines the inserted noise; ``to_json`` is its provenance.

    Args:
        dose_fraction: a, above 0 and up to 1.
        quanta: N0, incident quanta per channel and view at full dose. A channel is as wide as the smaller pixel side
            (:meth:`ParallelBeam.for_image`), so the figure belongs to the pixel size and the number of views.
        electronic_variance: Ne, variance of the electronic noise, quanta^2.
        apodisation: of the ramp filter, see :func:`~.fbp.apodisation_window`.
        cutoff: of the ramp filter, fraction of Nyquist.
        views: number of angles over half a turn.
        mu_water_per_mm: attenuation of water, 1/mm.

    Raises:
        ValueError: if a value is outside its range.

    >>> DoseSettings.from_json(DoseSettings(dose_fraction=0.1).to_json()).dose_fraction
    0.1
    """

    dose_fraction: float = 0.25
    quanta: float = 2e5
    electronic_variance: float = 0.0
    apodisation: str = "hann"
    cutoff: float = 1.0
    views: int = 720
    mu_water_per_mm: float = MU_WATER_PER_MM

    def __post_init__(self) -> None:
        _check_noise_model(self.dose_fraction, self.quanta, self.electronic_variance)
        apodisation_window(np.zeros(1), self.apodisation, self.cutoff)
        if self.views < 1:
            raise ValueError(f"Expected 1 or more views but got {self.views}. 720 is enough for 512 x 512 pixels.")
        if not (math.isfinite(self.mu_water_per_mm) and self.mu_water_per_mm > 0):
            raise ValueError(
                f"Expected mu_water_per_mm above 0 but got {self.mu_water_per_mm}. Usual: 0.0192 (70 keV)."
            )

    def to_json(self) -> str:
        """One JSON object, keys as the fields."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> DoseSettings:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: if it is no JSON object, or holds unknown keys or values outside their range.
        """
        values = json.loads(text)
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not set(values) <= known:
            raise ValueError(f"Expected a JSON object with keys out of {sorted(known)} but got {text[:200]!r}.")
        return cls(**values)


def _check_noise_model(dose_fraction: float, quanta: float, electronic_variance: float) -> None:
    if not 0 < dose_fraction <= 1:
        raise ValueError(
            f"Expected a dose fraction above 0 and up to 1 but got {dose_fraction}. Quarter dose is 0.25, not 25."
        )
    if not (math.isfinite(quanta) and quanta > 0):
        raise ValueError(f"Expected quanta above 0 but got {quanta}. Usual: 1e5 to 1e6 per channel and view.")
    if not (math.isfinite(electronic_variance) and electronic_variance >= 0):
        raise ValueError(
            f"Expected electronic_variance of 0 or more quanta^2 but got {electronic_variance}. Usual: 100."
        )


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
    quanta: float,
    electronic_variance: float = 0.0,
    noise_free: bool = False,
) -> np.ndarray:
    """Variance of the noise that a ray's line integral needs to look like one measured at dose fraction ``a``.

    A measured line integral has ``var(p) = 1/N + Ne/N^2`` with ``N = N0 exp(-p)`` quanta. From full dose to dose a:

        var = (1 - a)/a * e^p/N0 * (1 + (1 + a)/a * Ne * e^p/N0)

    and with ``noise_free=True``, for objects without noise of their own, all of it: ``1/(a N) + Ne/(a N)^2``. The
    logarithm of few quanta is also biased upwards; that bias is not part of the formula.

    Args:
        line_integral: p, any shape, no unit.
        dose_fraction: a, above 0 and up to 1.
        quanta: N0, incident quanta at full dose.
        electronic_variance: Ne, quanta^2.
        noise_free: whether the object is noise-free (a phantom).

    Returns:
        The same shape, float64, no unit; exactly 0 for a = 1 and ``noise_free=False``.

    Raises:
        ValueError: if a value is outside its range.

    Source: Yu et al. 2012, J Comput Assist Tomogr 36(4):477, eq. 11.

    >>> options = {"dose_fraction": 0.25, "quanta": 2e5, "electronic_variance": 100}
    >>> float(added_noise_variance(np.array(5.0), **options).round(6))
    0.003052
    >>> float(added_noise_variance(np.array(5.0), **options, noise_free=True).round(6))  # 0.062^2
    0.003849
    """
    a = dose_fraction
    _check_noise_model(a, quanta, electronic_variance)
    per_quantum = np.exp(np.asarray(line_integral, dtype=np.float64)) / quanta
    if noise_free:
        return per_quantum / a * (1 + electronic_variance * per_quantum / a)
    return (1 - a) / a * per_quantum * (1 + (1 + a) / a * electronic_variance * per_quantum)


def check_hu(hu: np.ndarray, axes: int) -> np.ndarray:
    """``hu`` as an array, refused if it cannot be HU.

    Args:
        hu: HU.
        axes: number of axes that it must have.

    Raises:
        ValueError: for another number of axes, NaN or infinity, or values that are never below 0 HU.

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
            f"Expected finite HU but got {bad} NaN or infinite voxels. Replace them, by -1024 for padding."
        )
    if hu.min() >= 0:
        raise ValueError(
            f"Expected HU, where air is about -1000, but got values from {hu.min():g} to {hu.max():g}, never below 0. "
            "It looks like stored values without their rescale, or an image scaled for display. Apply RescaleSlope and "
            "RescaleIntercept (HU = slope * stored + intercept), or give the original CT."
        )
    return hu


def noise_image(
    hu_slice: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    rng: np.random.Generator,
    *,
    noise_free: bool = False,
) -> np.ndarray:
    """The noise to add to one slice: projected, drawn per ray, reconstructed.

    Args:
        hu_slice: (x, y), HU. What lies outside the slice counts as air.
        pixel_mm: (dx, dy) in mm.
        settings: dose, quanta, filter.
        rng: source of the normal deviates, one per ray.
        noise_free: see :func:`added_noise_variance`.

    Returns:
        (x, y) float32, HU, mean 0; all 0 for a dose fraction of 1 unless ``noise_free``.

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
    return _noise(hu, pixel, settings, rng, noise_free)


def _noise(
    hu: np.ndarray, pixel: PixelSize, settings: DoseSettings, rng: np.random.Generator, noise_free: bool
) -> np.ndarray:
    geometry = ParallelBeam.for_image((hu.shape[0], hu.shape[1]), pixel, settings.views)
    variance = added_noise_variance(
        project(hu_to_attenuation(hu, settings.mu_water_per_mm), pixel, geometry),
        dose_fraction=settings.dose_fraction,
        quanta=settings.quanta,
        electronic_variance=settings.electronic_variance,
        noise_free=noise_free,
    )
    sinogram = np.sqrt(variance).astype(np.float32)
    sinogram *= rng.standard_normal(sinogram.shape, dtype=np.float32)
    noise = fbp(
        sinogram, geometry, (hu.shape[0], hu.shape[1]), pixel, apodisation=settings.apodisation, cutoff=settings.cutoff
    )
    noise *= np.float32(1000 / settings.mu_water_per_mm)
    return noise


def slice_generator(seed: int, index: int) -> np.random.Generator:
    """The random numbers of slice ``index``: they depend on seed and index alone, not on what was drawn before.

    >>> bool(slice_generator(1, 7).random() == slice_generator(1, 7).random())
    True
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def insert_noise(
    hu_volume: np.ndarray,
    pixel_mm: PixelSize,
    settings: DoseSettings,
    seed: int,
    *,
    noise_free: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """A volume as it would look at a lower dose: itself plus :func:`noise_image`, slice by slice.

    Slices have independent noise. Slice z of any sub-volume that starts at slice 0 is the same as in the whole, in
    whatever order; for other parts use :func:`noise_image` with :func:`slice_generator`.

    Args:
        hu_volume: (x, y, z), HU.
        pixel_mm: (dx, dy) in mm.
        settings: dose, quanta, filter.
        seed: 0 or above; the same seed gives the same noise.
        noise_free: True for phantoms, see :func:`added_noise_variance`.
        progress: called with (slices done, slices in all) after each slice.

    Returns:
        (x, y, z) float32, HU, nothing clipped or rounded; padding (:func:`~..regions.padding_mask`) as it was. For a
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
    if seed < 0:
        raise ValueError(f"Expected a seed of 0 or above but got {seed}.")
    if settings.dose_fraction == 1 and not noise_free:
        return hu.copy()
    padding = padding_mask(hu)
    result = hu.astype(np.float32)
    for z in range(hu.shape[2]):
        # Not noise_image: a slice without any air is legitimate inside a volume that was checked as a whole.
        noise = _noise(result[..., z], pixel, settings, slice_generator(seed, z), noise_free)
        result[..., z] += np.where(padding[..., z], np.float32(0), noise)
        if progress is not None:
            progress(z + 1, hu.shape[2])
    return result
