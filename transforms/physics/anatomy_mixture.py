"""Separate noise from anatomy in the periodograms of patches, using prior knowledge of both.

The periodogram of a patch is modelled as ``l S(f) + A(f)``: S is the scan's noise spectrum, the same for all patches up to
their level l, and A is the anatomy. The prior knowledge is:

- S is a ramp times a kernel's gain, ``|f| G^2(f)``, and a kernel's gain is smooth and flat at f = 0.
- Anatomy falls steeply: edges fall as f^-3 before the kernel, hence as f^-4 relative to the noise, which rises with f. The
  kernel acts on both alike (``A = a S f^-k``), unless the anatomy is sharper or smoother than an edge (``A = a |f| f^-k``).
- The amount of anatomy differs from patch to patch; many patches have almost none.

The amounts a, including 0, are a mixture whose weights are estimated (Kiefer and Wolfowitz 1956, Ann Math Stat 27:887);
estimating one amount per patch would mistake part of the noise for anatomy in every patch (Neyman and Scott 1948,
Econometrica 16:1). Periodograms follow a gamma distribution (Whittle 1953, J R Stat Soc B 15:125). The model is fitted by
EM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import polygamma

from .patch_spectra import Rings

_LEVELS = np.exp(np.linspace(-0.6, 0.6, 7))
"""Levels l that a patch may have, relative to the level expected at its position."""
AMOUNTS = 10.0 ** np.linspace(-1.5, 3.0, 9)
"""Amounts a of anatomy, relative to the noise at the fraction REFERENCE of the Nyquist frequency."""
REFERENCE = 0.21
WITH_KERNEL = (3.0, 4.5)
"""Exponents k of anatomy that went through the kernel."""
WITHOUT_KERNEL = (3.0, 4.0, 5.0)
"""Exponents k of anatomy that did not, relative to the ramp."""
CORRELATION = 7.5
"""Coefficients of a Hann-windowed DFT per independent periodogram value: 2 for conjugate pairs, times 3.75 for the
correlation of neighbours."""
LOWEST_RING = 2
"""Rings below this one contain what the window lets through of the patch's mean and gradient."""
BEND, TWIST, FREE_TWIST = 0.3, 0.02, 0.05
"""Typical second and third differences of log G^2 between rings STEP apart. Third differences are small; those of a
Gaussian kernel are 0."""
CALM = 0.7
"""If power at low frequencies varies between patches by less than this multiple of what noise alone gives, the patches hold
no anatomy (phantoms): everything in them is noise, and the kernel may follow the data more freely (FREE_TWIST)."""
STEP, SMOOTH = 0.063, 0.42
"""Fractions of the Nyquist frequency. Beyond SMOOTH, kernels may end abruptly, so larger differences are allowed."""
_SHOWN = 0.02
"""Rings with less than this fraction of a given spectrum's largest power are ignored."""
ROUNDS = 40


@dataclass(frozen=True)
class Separated:
    """The noise spectrum, and the noise and anatomy in each patch."""

    log_gain: np.ndarray
    """(rings,) natural logarithm of S over the ramp."""
    covariance: np.ndarray
    """(rings, rings) covariance of ``log_gain``."""
    level: np.ndarray
    """(n,) noise power of each patch, relative to S."""
    anatomy: np.ndarray
    """(n,) power of the anatomy in each patch over that of the noise, approximately."""
    spread: float
    """Standard deviation of the log level over patches, beyond what their positions explain."""


def separate(
    power: np.ndarray,
    ring: Rings,
    ramp: np.ndarray,
    expected: np.ndarray,
    *,
    white: float,
    nyquist: float,
    shape: np.ndarray | None = None,
    chosen: bool = False,
) -> Separated:
    """Estimate the noise spectrum of patches, and the noise level and anatomy of each.

    Args:
        power: (n, rings) HU^2 mm^2, periodograms.
        ring: frequencies of the rings and their coefficients.
        ramp: (rings,) expected periodogram of noise with the spectrum |f|.
        expected: (n,) noise power expected at each patch's position, mean 1.
        white: power that is neither noise nor anatomy but rounding to whole HU, HU^2 mm^2.
        nyquist: Nyquist frequency of the smaller pixel side, 1/mm.
        chosen: whether the patches were selected for having little anatomy; that they are alike is then no evidence that
            they have none.
        shape: (rings,) log G^2 if it is known up to a constant; None to estimate it.

    Returns:
        The estimate; ``log_gain`` covers all rings, extrapolated smoothly below LOWEST_RING.
    """
    calm = not chosen and _calm(power / expected[:, None], ring.count)
    used = np.arange(len(ring.count)) >= (1 if calm else LOWEST_RING)
    if shape is not None:
        # Beyond the end of a given spectrum, the little power there is (aliasing, rounding) would distort the level.
        log_power = np.log(ramp) + shape
        used = used & (log_power > log_power.max() + np.log(_SHOWN))
    relative = ring.frequency / nyquist
    shapes, with_kernel = _anatomy(relative[used])
    if calm:
        shapes, with_kernel = shapes[:1], with_kernel[:1]
    data = power[:, used] / expected[:, None]
    start = np.log(np.maximum(np.median(data, axis=0) - white, 1e-6 * data.mean()) / ramp[used])
    problem = _Problem(
        used=used,
        data=data,
        weight=ring.count[used] / CORRELATION,
        white=(white / expected)[:, None, None],
        base=ramp[used],
        shapes=shapes,
        with_kernel=with_kernel,
        scale=float(np.exp(np.median(start))),
        penalty=_penalty(relative, FREE_TWIST if calm else TWIST),
        shape=shape,
    )
    if shape is not None:
        start = shape[used] + np.median(start - shape[used])
    found = _fitted(problem, start)
    return Separated(
        found.log_gain, found.covariance, found.level * expected, found.anatomy / found.level, found.spread
    )


@dataclass(frozen=True)
class _Problem:
    used: np.ndarray
    data: np.ndarray
    weight: np.ndarray
    white: np.ndarray
    base: np.ndarray
    shapes: np.ndarray
    with_kernel: np.ndarray
    scale: float
    penalty: np.ndarray
    shape: np.ndarray | None

    @property
    def level(self) -> np.ndarray:
        return np.repeat(_LEVELS, len(self.shapes))

    @property
    def kind(self) -> np.ndarray:
        return np.tile(np.arange(len(self.shapes)), len(_LEVELS))

    def smoothed(self, target: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log gain of all rings and its covariance, from targets of the used rings and their information (1 / variance)."""
        known, right = np.zeros(len(self.used)), np.zeros(len(self.used))
        known[self.used] = information + 1e-9
        right[self.used] = known[self.used] * target
        if self.shape is not None:
            constant = np.sum(right - known * self.shape) / known.sum()
            return self.shape + constant, np.full((len(known), len(known)), 1 / known.sum())
        covariance = np.linalg.inv(np.diag(known) + self.penalty)
        return covariance @ right, covariance


@dataclass(frozen=True)
class _Fit:
    log_gain: np.ndarray
    covariance: np.ndarray
    level: np.ndarray
    anatomy: np.ndarray
    spread: float


def _fitted(problem: _Problem, start: np.ndarray) -> _Fit:
    """Fit by EM from one starting point."""
    log_gain, spread = start, 0.15
    share = np.full(len(problem.shapes), 1 / len(problem.shapes))
    level, kind, weight = problem.level, problem.kind, problem.weight
    for _ in range(ROUNDS):
        noise = problem.base * np.exp(log_gain)
        tied, inverse = _power(problem, noise)
        belief = _belief(problem, inverse, share, spread)
        counted = np.bincount(kind, weights=belief.sum(axis=0)) + 1 / len(share)
        share = counted / counted.sum()
        mean_log, mean_square = belief @ np.log(level), belief @ np.log(level) ** 2
        spread = float(np.clip(np.sqrt(max(mean_square.mean() - mean_log.mean() ** 2, 0)), 0.05, 0.35))
        # One EM step for the noise, then smoothing with the prior on kernels.
        moved = tied[None] * inverse * belief[..., None]
        expectation = moved.sum(axis=(0, 1))
        observed = ((moved * inverse).sum(axis=1) * problem.data).sum(axis=0)
        information = np.einsum("nc,ncr->r", belief * level**2, inverse**2) * noise**2 * weight * 0.7
        target = log_gain + np.log(np.clip(observed / expectation, 0.3, 3))
        whole, covariance = problem.smoothed(target, information)
        whole = whole + mean_log.mean()
        change = np.abs(whole[problem.used] - log_gain)[information > 0.1 * information.max()].max()
        log_gain = whole[problem.used]
        if change < 0.002:
            break
    anatomy = np.where(problem.with_kernel[:, None], noise, problem.scale * problem.base) * problem.shapes @ weight
    amount = anatomy / (weight @ noise)
    return _Fit(whole, covariance, belief @ level, belief @ amount[kind], spread)


def _power(problem: _Problem, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each level and anatomy: the power that scales with the noise (c, rings), and 1 / total power (n, c, rings)."""
    with_kernel = problem.with_kernel[:, None]
    tied = _LEVELS[:, None, None] * noise + np.where(with_kernel, noise, 0) * problem.shapes
    fixed = np.where(with_kernel, 0, problem.scale * problem.base) * problem.shapes
    whole = (tied + fixed).reshape(-1, noise.size)
    return tied.reshape(-1, noise.size), 1 / (whole[None] + problem.white)


def _belief(problem: _Problem, inverse: np.ndarray, share: np.ndarray, spread: float) -> np.ndarray:
    """Probability (n, c) of each combination of level and anatomy in each patch."""
    fit = np.log(inverse) @ problem.weight - np.einsum("nr,ncr->nc", problem.weight * problem.data, inverse)
    prior = np.exp(-0.5 * (np.log(_LEVELS) / spread) ** 2)
    fit += np.log(np.repeat(prior / prior.sum(), len(share))) + np.log(share)[problem.kind]
    belief = np.exp(fit - fit.max(axis=1, keepdims=True))
    return belief / belief.sum(axis=1, keepdims=True)


def _calm(power: np.ndarray, count: np.ndarray) -> bool:
    """Whether the powers (n, rings) vary over the patches as noise alone does, at the low frequencies of anatomy."""
    if len(power) < 8:
        return False
    spread = np.log(np.maximum(power[:, 1:6], 1e-12)).var(axis=0)
    return bool(np.mean(spread / polygamma(1, count[1:6] / CORRELATION)) < CALM)


def _anatomy(frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (m, rings) of anatomy relative to the noise or the ramp, the first 0, and which went through the kernel."""
    relative = frequency / REFERENCE
    shapes = [np.zeros_like(frequency)]
    for exponent in (*WITH_KERNEL, *WITHOUT_KERNEL):
        shapes += [amount * relative**-exponent for amount in AMOUNTS]
    with_kernel = np.arange(len(shapes)) <= len(WITH_KERNEL) * len(AMOUNTS)
    return np.array(shapes), with_kernel


def _penalty(frequency: np.ndarray, twist: float) -> np.ndarray:
    """Prior precision (rings, rings) of log G^2: kernels are smooth and symmetric about f = 0."""
    count = len(frequency)
    step = float(np.median(np.diff(frequency)))
    mirrored = np.abs(np.arange(-3, count))
    values = np.zeros((count + 3, count))
    values[np.arange(count + 3), mirrored] = 1
    second = np.diff(values, n=2, axis=0)
    third = np.diff(second, axis=0)
    result = np.zeros((count, count))
    for rows, size, power, first in ((second, BEND, 2, -2.0), (third, twist, 3, -1.5)):
        at = (np.arange(len(rows)) + first) * step
        allowed = size * (step / STEP) ** power * (1 + (np.maximum(at, 0) / SMOOTH) ** 2)
        result += rows.T @ (allowed[:, None] ** -2.0 * rows)
    return result
