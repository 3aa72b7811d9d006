"""From a network's output to stored values: strength, padding, rounding and clipping. No other module rounds or clips HU.

The network's change in HU is added to the stored values. A voxel that the network leaves alone therefore stays equal to the
bit, whatever its type and scaling, and even if a float32 cannot hold its value exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESULT = "denoised"
"""The kind of the main result, the denoised scan."""
_SHOWS_THE_SCAN = (RESULT, "content", "lowdose")


@dataclass(frozen=True)
class Range:
    """Range of a type of stored values.

    Attributes:
        low: the lowest value.
        high: the highest value.
        whole: whether only whole numbers can be stored.
    """

    low: float
    high: float
    whole: bool = True


ONLY_AIR_HU = -900.0
"""Values below this are air."""


@dataclass(frozen=True)
class Clipped:
    """Values that could not be stored and were set to the nearest storable value.

    Attributes:
        below: number of values below the range.
        above: number of values above the range.
        below_hu: largest distance below the range, HU.
        above_hu: largest distance above the range, HU.
        lowest_hu: lower end of the range, HU; the highest one if several ranges were combined.
        highest_hu: upper end of the range, HU; the lowest one if several ranges were combined.
    """

    below: int = 0
    above: int = 0
    below_hu: float = 0.0
    above_hu: float = 0.0
    lowest_hu: float = -np.inf
    highest_hu: float = np.inf

    @classmethod
    def of(cls, beyond: np.ndarray, holds: Range, *, slope: float = 1.0, inter: float = 0.0) -> Clipped:
        """Summarise the values that lay outside a range.

        Args:
            beyond: the third result of :func:`stored_values`, HU.
            holds: the range.
            slope: HU = stored * slope + inter.
            inter: HU.
        """
        if not beyond.any():
            return cls()
        ends = sorted((holds.low * slope + inter, holds.high * slope + inter))
        below, above = int((beyond < 0).sum()), int((beyond > 0).sum())
        return cls(below, above, max(-float(beyond.min()), 0.0), max(float(beyond.max()), 0.0), *ends)

    @property
    def count(self) -> int:
        """Number of values below and above the range together."""
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
        """Describe for users how many values were clipped, by how much, and whether it matters.

        Args:
            kind: kind of result.
            voxels: number of all voxels.

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
    high = float(info.max)  # for int64 this is 2**63, one too many: the next lower float64 keeps the cast in range
    return Range(float(info.min), high if int(high) == info.max else float(np.nextafter(high, 0.0)))


def stored_values(
    before: np.ndarray | None,
    change: np.ndarray,
    holds: Range,
    *,
    slope: float = 1.0,
    padded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add a change in HU to stored values, and report what could not be stored.

    Args:
        before: stored values, any shape and real type; whole numbers if ``holds.whole``. None if all values are new.
        change: change in HU, float64, the same shape.
        holds: the range of the stored type.
        slope: HU = stored * slope + intercept.
        padded: bool, the same shape; these values are not changed. None if there are none.

    Returns:
        Three arrays. The first has the new values within the range, float64, rounded to the nearest whole number (halves to even) if
        they must be whole. The second, bool, is true for values that do not change, for which only ``before`` is exact. The third,
        float64, is by how many HU a value exceeded the range; 0 if it was already at that end before.

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
    """Like :func:`stored_values`, but return the values in the type to be written and a summary of those that were clipped.

    HU = stored * slope + inter.

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
    """Apply a part of the network's correction: with strength 1 return the prediction itself, with 0 the scan itself.

    Args:
        hu: the scan, float32 HU, any shape.
        predicted: the network's result, HU, the same shape.
        strength: 0 to 1; above 1 the correction is exaggerated.
    """
    return predicted if strength == 1 else hu if strength == 0 else hu + np.float32(strength) * (predicted - hu)


def keep_padding(images: Mapping[str, np.ndarray], hu: np.ndarray, padded: np.ndarray) -> dict[str, np.ndarray]:
    """Restore the scan's own values in scanner padding; maps such as noise and disagreement are set to 0 there.

    Args:
        images: images in HU, by kind.
        hu: the scan in HU, the same shape.
        padded: bool, scanner padding, the same shape.
    """
    zero = np.float32(0)
    return {name: np.where(padded, hu if name in _SHOWS_THE_SCAN else zero, image) for name, image in images.items()}
