"""From a network's output to stored values: strength, padding, rounding, clipping, counting. Nothing else rounds or clips HU.

Stored values change by the network's change in HU, so that a voxel the network leaves alone is equal to the bit, whatever
its type, its scaling and how much of it a float32 holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESULT = "denoised"
"""The kind of result that is the denoised scan; the others show what was removed, or where the network is unsure."""
_SHOWS_THE_SCAN = (RESULT, "content", "lowdose")


@dataclass(frozen=True)
class Range:
    """What a type of stored values can hold.

    Attributes:
        low: the least value.
        high: the greatest value.
        whole: whole numbers only.
    """

    low: float
    high: float
    whole: bool = True


ONLY_AIR_HU = -900.0
"""Below this lies nothing but air."""


@dataclass(frozen=True)
class Clipped:
    """Values that could not be stored and were set to the nearest that can.

    Attributes:
        below: how many lay below the range.
        above: how many lay above it.
        below_hu: by how much at the most, HU.
        above_hu: the same above.
        lowest_hu: what can be stored at the least; the highest, where several ranges have come together.
        highest_hu: what can be stored at the most; the lowest of several.
    """

    below: int = 0
    above: int = 0
    below_hu: float = 0.0
    above_hu: float = 0.0
    lowest_hu: float = -np.inf
    highest_hu: float = np.inf

    @classmethod
    def of(cls, beyond: np.ndarray, holds: Range, *, slope: float = 1.0, inter: float = 0.0) -> Clipped:
        """From what :func:`stored_values` says of each value."""
        if not beyond.any():
            return cls()
        ends = sorted((holds.low * slope + inter, holds.high * slope + inter))
        below, above = int((beyond < 0).sum()), int((beyond > 0).sum())
        return cls(below, above, max(-float(beyond.min()), 0.0), max(float(beyond.max()), 0.0), *ends)

    @property
    def count(self) -> int:
        """Both together."""
        return self.below + self.above

    def __add__(self, other: Clipped) -> Clipped:
        return Clipped(
            self.below + other.below,
            self.above + other.above,
            max(self.below_hu, other.below_hu),
            max(self.above_hu, other.above_hu),
            max(self.lowest_hu, other.lowest_hu),
            min(self.highest_hu, other.highest_hu),
        )

    def described(self, kind: str, voxels: int) -> str:
        """A sentence for a user: where, by how much, whether it matters.

        Args:
            kind: of result.
            voxels: in all.

        >>> Clipped(below=3, below_hu=6.2, lowest_hu=-1024).described("denoised", 1000)
        '3 of 1000 voxels of denoised (0.3 %) clipped to -1024 HU, the lowest that the file can hold, by up to 6 HU: air, no tissue is changed'
        """
        ends = [
            (
                self.below,
                self.below_hu,
                self.lowest_hu,
                "lowest",
                self.lowest_hu <= ONLY_AIR_HU,
                "air, no tissue is changed",
            ),
            (self.above, self.above_hu, self.highest_hu, "highest", False, ""),
        ]
        parts = [
            f"{count} of {voxels} voxels of {kind} ({float(f'{100 * count / voxels:.2g}'):g} %) clipped to {end:.0f} HU, the {name} that the file can "
            f"hold, by up to {by:.0f} HU: {why if harmless else 'their HU are not to be measured'}"
            for count, by, end, name, harmless, why in ends
            if count
        ]
        return "; ".join(parts)


def range_of(dtype: np.dtype) -> Range:
    """The range of an integer or floating-point type.

    >>> range_of(np.dtype("uint8"))
    Range(low=0.0, high=255.0, whole=True)
    """
    if dtype.kind == "f":
        return Range(float(np.finfo(dtype).min), float(np.finfo(dtype).max), whole=False)
    info = np.iinfo(dtype)
    high = float(info.max)  # of int64 it is 2**63, one too many: the largest float64 below it keeps the cast in range
    return Range(float(info.min), high if int(high) == info.max else float(np.nextafter(high, 0.0)))


def stored_values(
    before: np.ndarray | None,
    change: np.ndarray,
    holds: Range,
    *,
    slope: float = 1.0,
    padded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stored values after a change in HU, and what could not be stored of it.

    Args:
        before: stored values, any shape and real type; whole where ``holds`` is. None where nothing was there: all is new.
        change: HU, float64, the same shape.
        holds: what can be stored.
        slope: HU = stored * slope + intercept.
        padded: bool; these values stay as they are. None where there are none.

    Returns:
        Values within the range, float64, rounded to nearest (halves to even) where they must be whole; bool, what stays as
        it is, where only ``before`` is exact; float64, HU that the type could not hold where the value was not at that end
        before, else 0.

    >>> values, kept, beyond = stored_values(np.array([10, 255, 250]), np.array([0.0, 2.6, 9.0]), range_of(np.dtype("u1")))
    >>> values.tolist(), kept.tolist(), beyond.tolist()
    ([10.0, 255.0, 255.0], [True, False, False], [0.0, 0.0, 4.0])
    """
    steps = change / slope
    if holds.whole:
        steps = np.rint(steps)
    values = steps if before is None else before + steps
    within = values.clip(holds.low, holds.high)
    beyond = (values - within) * slope
    if before is None:
        return within, np.zeros(change.shape, dtype=bool), beyond
    kept = change == 0 if padded is None else padded | (change == 0)
    return within, kept, np.where(kept | (within == before), 0.0, beyond)


def changed(
    before: np.ndarray | None, change: np.ndarray, dtype: np.dtype, *, slope: float = 1.0, inter: float = 0.0
) -> tuple[np.ndarray, Clipped]:
    """As :func:`stored_values`, in the type to be written, and what was clipped; HU = stored * slope + inter.

    >>> values, clipped = changed(np.array([10, 20], np.int16), np.array([0.4, -70000.0]), np.dtype(np.int16))
    >>> values, clipped.count, clipped.below_hu
    (array([    10, -32768], dtype=int16), 1, 37212.0)
    """
    values, kept, beyond = stored_values(before, change, holds := range_of(dtype), slope=slope)
    stored = values.astype(dtype)
    if before is not None:
        np.copyto(stored, before, where=kept, casting="unsafe")
    return stored, Clipped.of(beyond, holds, slope=slope, inter=inter)


def with_strength(hu: np.ndarray, predicted: np.ndarray, strength: float) -> np.ndarray:
    """The scan plus so much of the network's change: 1 gives the prediction itself, 0 the scan itself.

    Args:
        hu: float32 HU, any shape.
        predicted: the network's result, the same shape.
        strength: 0 to 1; above 1 the change exceeds the prediction.
    """
    return predicted if strength == 1 else hu if strength == 0 else hu + np.float32(strength) * (predicted - hu)


def keep_padding(images: Mapping[str, np.ndarray], hu: np.ndarray, padded: np.ndarray) -> dict[str, np.ndarray]:
    """Results with the scan's own values where the scanner padded; there, noise and disagreement are 0.

    Args:
        images: by kind, HU.
        hu: of the scan, the same shape.
        padded: bool, the same shape.
    """
    zero = np.float32(0)
    return {name: np.where(padded, hu if name in _SHOWS_THE_SCAN else zero, image) for name, image in images.items()}
