"""Smooth random fields in three dimensions: sums of random plane waves.

A field is defined everywhere, not on a grid: neighbouring slices match, and another image size shows the same patient. On
the pixels of a slice the sum is two matrix products, since sin(a(x) + b(y)) separates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.tissues import Array, Field


@dataclass(frozen=True)
class Waves:
    """A random field of zero mean and unit variance.

    Attributes:
        vectors: wave vectors (waves, 3) along x, y, z, rad/mm.
        phases: phases (waves,), rad.
    """

    vectors: Array
    phases: Array

    def on_grid(self, x: Array, y: Array, z: float) -> Array:
        """Values (len(x), len(y)) on the slice at ``z``; all coordinates in mm."""
        first = np.outer(x, self.vectors[:, 0]) + (self.vectors[:, 2] * np.float32(z) + self.phases)
        second = np.outer(y, self.vectors[:, 1])
        gain = np.float32(np.sqrt(2.0 / len(self.phases)))
        first, second = first.astype(np.float32), second.astype(np.float32)
        return gain * (np.sin(first) @ np.cos(second).T + np.cos(first) @ np.sin(second).T)

    def at(self, points: Field) -> Array:
        """Values (points,) at ``points`` (points, 3) in mm."""
        gain = np.float32(np.sqrt(2.0 / len(self.phases)))
        return gain * np.sin(points.astype(np.float32) @ self.vectors.T + self.phases).sum(axis=-1)


def draw_waves(
    rng: np.random.Generator,
    shortest: float,
    longest: float,
    *,
    count: int = 96,
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Waves:
    """Draw a field whose wavelengths lie between ``shortest`` and ``longest`` mm.

    Args:
        rng: source of all randomness.
        shortest: smallest wavelength in mm.
        longest: largest wavelength in mm.
        count: number of plane waves; with more, the field looks less regular.
        stretch: factors on the wavelength along x, y and z, for streaks.
    """
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(np.log(shortest), np.log(longest), size=(count, 1)))
    vectors = 2 * np.pi * direction / (length * np.asarray(stretch))
    return Waves(vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32))
