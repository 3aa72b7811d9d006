"""Noise power spectrum measured by the user: read from a file, checked and turned into a kernel's gain."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEAST_LINES = 5
MM_COLUMNS = ("frequency_per_mm", "1/mm", "per_mm", "cycles/mm", "lp/mm")
CM_COLUMNS = ("frequency_per_cm", "1/cm", "per_cm", "cycles/cm", "lp/cm")
_FLOOR = 1e-6
"""Powers below this fraction of the largest are raised to it: beyond a kernel's cut-off there is none."""


class SpectrumError(ValueError):
    """A file with a spectrum cannot be used; the message is one line."""


@dataclass(frozen=True)
class NoiseSpectrum:
    """A radial noise power spectrum."""

    frequency_per_mm: np.ndarray
    """(n,) 1/mm, rising, 0 or above."""
    power: np.ndarray
    """(n,) HU^2 mm^2."""
    source: str
    """File name, for the provenance."""

    def log_gain(self, frequency_per_mm: np.ndarray) -> np.ndarray:
        """Log of the power over a ramp's, ``|f|``, at frequencies (m,), 1/mm; constant below the lowest measured one."""
        own = self.frequency_per_mm > 0
        frequency, power = self.frequency_per_mm[own], self.power[own]
        log = np.log(np.maximum(power, _FLOOR * power.max()) / frequency)
        inside = np.interp(frequency_per_mm, frequency, log)
        # Beyond the measured range the kernel keeps falling as it did at the end; it never rises.
        last = min(len(log) - 1, 4)
        slope = min((log[-1] - log[-1 - last]) / (frequency[-1] - frequency[-1 - last]), 0.0)
        beyond = np.maximum(frequency_per_mm - frequency[-1], 0) * slope
        return inside + beyond


def read_spectrum(path: str | Path) -> NoiseSpectrum:
    """Read a spectrum from a CSV file: a line of headings, then one line per frequency.

    The first column is the frequency, headed ``frequency_per_mm`` or ``frequency_per_cm``; the second is the power, headed
    ``power_hu2_mm2``. The headings state the units, because a spectrum in other units would pass for another kernel.

    Args:
        path: the CSV file; lines that begin with # are skipped.

    Raises:
        SpectrumError: if the file cannot be read, states other units, or holds values that are not a noise spectrum.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row and not row[0].lstrip().startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpectrumError(f"Expected a spectrum as CSV in {path}, but it cannot be read: {error}.") from error
    heads = [value.strip().lower() for value in rows[0]] if rows else []
    if len(heads) < 2 or heads[0] not in (*MM_COLUMNS, *CM_COLUMNS) or heads[1] != "power_hu2_mm2":
        raise SpectrumError(
            f"Expected the columns frequency_per_mm (or frequency_per_cm) and power_hu2_mm2 in {path}, but got "
            f"{', '.join(heads[:4]) or 'nothing'}. State the units in the first line."
        )
    try:
        values = np.array([[float(value) for value in row[:2]] for row in rows[1:]])
    except ValueError as error:
        raise SpectrumError(f"Expected two numbers a line in {path}, but got: {error}.") from error
    scale = 0.1 if heads[0] in CM_COLUMNS else 1.0
    return check_spectrum(values.reshape(-1, 2)[:, 0] * scale, values.reshape(-1, 2)[:, 1], path.name)


def check_spectrum(frequency_per_mm: np.ndarray, power: np.ndarray, source: str) -> NoiseSpectrum:
    """Return the spectrum, or refuse it if it cannot be one of CT noise.

    Args:
        frequency_per_mm: (n,) 1/mm, rising, 0 or above.
        power: (n,) HU^2 mm^2, 0 or above.
        source: name of the file, for messages and the provenance.

    Raises:
        SpectrumError: for too few values, frequencies that do not rise, powers below 0, or other units.

    >>> check_spectrum(np.linspace(0, 0.7, 8), np.linspace(0, 100, 8), "water").source
    'water'
    """
    frequency, power = np.asarray(frequency_per_mm, dtype=float), np.asarray(power, dtype=float)
    if (
        len(frequency) < LEAST_LINES
        or not np.isfinite([*frequency, *power]).all()
        or (np.diff(frequency) <= 0).any()
        or frequency[0] < 0
        or (power < 0).any()
        or not power.max() > 0
    ):
        raise SpectrumError(
            f"Expected {LEAST_LINES} or more rising frequencies with powers of 0 or more in {source}, but its {len(frequency)} lines "
            "do not fit. Check the file."
        )
    if not 0.15 <= frequency[-1] <= 5:
        raise SpectrumError(
            f"Expected frequencies up to 0.15 to 5 / mm in {source}, but got up to {frequency[-1]:g} / mm. Are they in "
            "1/cm (head the column frequency_per_cm) or 1/pixel (divide by the pixel size in mm)?"
        )
    level = math.sqrt(2 * math.pi * float(np.trapezoid(power * frequency, frequency)))
    if not 0.2 <= level <= 2000:
        raise SpectrumError(
            f"Expected a spectrum of CT noise in {source}, with a standard deviation of 0.2 to 2000 HU, but got {level:.3g} HU. "
            "Is the power in HU^2 mm^2?"
        )
    return NoiseSpectrum(frequency, power, source)
