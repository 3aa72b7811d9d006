"""Noise realizations: noise at the level of a scan's full dose, computed once and scaled to any dose.

The noise to insert for dose ``a`` has ``sqrt((1 - a) / a)`` times the standard deviation of the full-dose noise, whatever
the object (Ne = 0). A few stored realizations, computed for ``a = 0.5`` and Ne = 0, therefore give every dose by one
multiplication: cheap enough for every patch in training.

Electronic noise does not scale like this. For a ray with ``N = N0 exp(-p)`` photons at full dose, the noise to insert
exceeds the scaled realization by the factor ``sqrt(1 + (1 + a)/a * Ne/N)`` (Yu et al. 2012, J Comput Assist Tomogr
36(4):477, eq. 11), here for Ne = 100:

    N, photons    a = 0.5    a = 0.25    a = 0.1
    100,000       1.00       1.00        1.01
     10,000       1.01       1.02        1.05
      1,000       1.14       1.22        1.45
        100       2.00       2.45        3.46

In a diagnostic body scan, about 10,000 photons arrive behind the middle of the abdomen: the error is then 1 to 5 %. Behind
shoulders or at small N0 use :class:`~ct_cncl.transforms.patches.low_dose.SimulateLowDose`, which models Ne.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from ct_cncl.transforms.common.hu import ArrayOrTensor
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.projections import Projections

SCANNER_FLOOR_HU = -1024.0
"""Scanners cut values off below this; so does the simulation, unless the scan itself goes lower."""

ELECTRONIC_VARIANCE = 100.0
"""Ne of noise realizations by photon-count simulation, photons^2: typical of scanners."""


def noise_realization(
    hu_volume: np.ndarray,
    pixel_mm: tuple[float, float],
    settings: DoseSettings,
    seed: int,
    *,
    counts_at_dose: float | None = None,
    exact_at_dose: float | None = None,
    projections: Projections | None = None,
) -> np.ndarray:
    """One noise realization, with the variance of the scan's own noise at full dose.

    By the closed formula it is exact at any dose at which electronic noise is negligible. With ``counts_at_dose``, photon
    counts and their logarithm are simulated instead, with electronic noise of :data:`ELECTRONIC_VARIANCE` and
    photon-starvation correction (``settings.starvation_counts`` ...): streaks and bands are exact at that dose and
    approximate at others.

    Args:
        hu_volume: (x, y, z), HU.
        pixel_mm: (dx, dy) in mm.
        settings: photons, filter, geometry and photon-starvation correction. Dose fraction and route are ignored, and so is
            electronic noise unless ``exact_at_dose`` is given.
        seed: 0 or above; the same seed gives the same noise.
        exact_at_dose: dose fraction at which the formula's electronic noise (that of ``settings``) is exact; None leaves
            electronic noise out.
        counts_at_dose: dose fraction of photon-count simulation, above 0 and below 1; None takes the formula.
        projections: line integrals of this volume, shared by its realizations.

    Returns:
        (x, y, z) float32, HU, mean 0 (except for the bands of photon-count simulation); exactly 0 in padding.

    Raises:
        ValueError: as :func:`~ct_cncl.transforms.physics.insert_noise`, or for ``counts_at_dose`` outside its range.

    >>> volume = np.pad(np.zeros((16, 16, 1)), ((8, 8), (8, 8), (0, 0)), constant_values=-1000.0)
    >>> noise = noise_realization(volume, (1.0, 1.0), DoseSettings(dose_fraction=0.1, views=32), seed=0)
    >>> tenth = insert_noise(volume, (1.0, 1.0), DoseSettings(dose_fraction=0.1, views=32), seed=0)
    >>> bool(np.allclose(volume + noise_factor(0.1) * noise, tenth, atol=1e-3))
    True
    """
    volume = np.asarray(hu_volume)
    if counts_at_dose is None:
        electronic = 0.0 if exact_at_dose is None else settings.electronic_variance
        dose = exact_at_dose if electronic and exact_at_dose is not None else 0.5
        unit = dataclasses.replace(settings, dose_fraction=dose, electronic_variance=electronic, route="formula")
        noise = insert_noise(volume, pixel_mm, unit, seed, projections=projections) - volume.astype(np.float32)
        return noise if dose == 0.5 else (noise / noise_factor(dose)).astype(np.float32)
    if not 0 < counts_at_dose < 1:
        raise ValueError(f"Expected a dose above 0 and below 1 for photon-count simulation, but got {counts_at_dose}.")
    low = dataclasses.replace(
        settings, dose_fraction=counts_at_dose, electronic_variance=ELECTRONIC_VARIANCE, route="photon_counts"
    )
    noise = insert_noise(volume, pixel_mm, low, seed, projections=projections) - volume.astype(np.float32)
    return (noise / noise_factor(counts_at_dose)).astype(np.float32)


def noise_factor(dose_fraction: float, *, of: float = 1.0, noise_free: bool = False) -> float:
    """Factor by which a noise realization is multiplied before it is added.

    - A scan taken to dose a: ``sqrt((1 - a) / a)``.
    - A scan already taken to dose b, then to a times b: ``sqrt((1 - a) / (a b))``, with another noise realization.
    - A noise-free object, which needs the whole noise of dose a: ``sqrt(1 / a)``.

    Args:
        dose_fraction: a, above 0 and up to 1.
        of: b, the dose of the image that the noise is added to, relative to full dose.
        noise_free: whether the image has no noise of its own.

    Raises:
        ValueError: for a fraction outside its range.

    >>> noise_factor(0.1), noise_factor(0.1, of=0.25), noise_factor(0.25, noise_free=True)
    (3.0, 6.0, 2.0)
    """
    if not (0 < dose_fraction <= 1 and 0 < of <= 1):
        raise ValueError(f"Expected dose fractions above 0 and up to 1 but got {dose_fraction} of {of}.")
    return math.sqrt((1 if noise_free else 1 - dose_fraction) / (dose_fraction * of))


def cut_off(noisy: ArrayOrTensor, clean: ArrayOrTensor, floor_hu: float | ArrayOrTensor) -> ArrayOrTensor:
    """Cut ``noisy`` off at the scanner's floor, or at the value of ``clean`` where that is lower (padding).

    Args:
        noisy: any shape, HU.
        clean: the same shape, HU, before noise was added.
        floor_hu: lowest value that the scanner writes, see :func:`~.simulation.scanner_floor`; a number or a broadcastable
            array.

    >>> cut_off(np.array([-1100.0, -2000.0, 7.0]), np.array([-1000.0, -2000.0, 0.0]), -1024.0)
    array([-1024., -2000.,     7.])
    """
    if isinstance(noisy, torch.Tensor):
        return torch.maximum(noisy, clean.clamp(max=floor_hu))
    return np.maximum(noisy, np.minimum(clean, floor_hu))


def check_dose_range(dose_range: Sequence[float]) -> tuple[float, float]:
    """Return ``dose_range`` as two floats.

    Args:
        dose_range: lowest and highest dose fraction.

    Raises:
        ValueError: unless it is two dose fractions above 0 and up to 1, the lower first.

    >>> check_dose_range([0.1, 1])
    (0.1, 1.0)
    """
    values = tuple(float(value) for value in dose_range)
    if len(values) != 2 or not 0 < values[0] <= values[1] <= 1:
        raise ValueError(
            f"Expected two dose fractions above 0 and up to 1, the lower first, but got {list(dose_range)}. Usual: 0.1, 0.5."
        )
    return values[0], values[1]


def dose_between(dose_range: tuple[float, float], share: float) -> float:
    """The dose fraction that lies ``share`` (0 to 1) of the way through a range, on a logarithmic scale.

    >>> round(dose_between((0.1, 0.4), 0.5), 6)
    0.2
    """
    low, high = dose_range
    return low * (high / low) ** share
