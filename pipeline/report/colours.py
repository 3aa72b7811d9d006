"""Colours of the report: told apart also with a colour vision deficiency, on a dark screen and on paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SERIES = 8
"""Colours of lines; theme.css defines them as --series-0 ..., for the screen and for paper."""
DASHES = ("-", "--", ":", "-.")
"""Lines beyond the colours are told apart by these."""
LEVELS = 256
"""Entries of a colour map."""
_DIVERGING = ((-1.0, "#d9efff"), (-0.5, "#3b8fe0"), (0.0, "#0d0e10"), (0.5, "#d9730d"), (1.0, "#ffe9c2"))
"""Blue, near black, orange: the eye is led to large differences, and a dark room stays dark where there are none."""
_SEQUENTIAL = (
    (0, "#00224d"), (20, "#003070"), (23, "#003170"), (28, "#11356f"), (45, "#2e416c"),
    (145, "#8c8878"), (202, "#c6b567"), (221, "#dac65a"), (251, "#fde234"), (255, "#fde737"),
)  # fmt: skip
"""Cividis, to 4 of 255 in every channel. Here, because matplotlib is an extra and every report needs the map."""


def grey_map() -> np.ndarray:
    """Black to white, (256, 3) uint8."""
    return np.repeat(np.arange(LEVELS, dtype=np.uint8)[:, None], 3, axis=1)


def difference_map() -> np.ndarray:
    """Blue below zero, near black at zero, orange above, (256, 3) uint8; as light at -x as at +x.

    Blue and orange are told apart with every common colour vision deficiency, and lightness alone already shows how large a
    difference is.
    """
    return _between(_DIVERGING, np.linspace(-1, 1, LEVELS))


def sequential_map() -> np.ndarray:
    """Cividis, (256, 3) uint8: dark blue to yellow, made for colour vision deficiencies (Nunez et al., PLoS ONE 13, 2018)."""
    return _between(_SEQUENTIAL, np.arange(LEVELS))


def _between(stops: Sequence[tuple[float, str]], places: np.ndarray) -> np.ndarray:
    """Colours at ``places``, linear between those of the stops, (n, 3) uint8."""
    at = np.array([place for place, _ in stops])
    colours = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for _, text in stops], dtype=np.float64)
    return np.stack([np.interp(places, at, colours[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)


def as_hex(colours: np.ndarray) -> str:
    """A colour map as one text, six digits a colour.

    >>> as_hex(grey_map())[:12]
    '000000010101'
    """
    return np.ascontiguousarray(colours, dtype=np.uint8).tobytes().hex()
