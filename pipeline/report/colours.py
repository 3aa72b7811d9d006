"""Colours of the report, which can also be told apart with a colour vision deficiency, on a dark screen and on paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SERIES = 8
"""Number of colours of lines; theme.css defines them as --series-0 ..., for the screen and for paper."""
DASHES = ("-", "--", ":", "-.")
"""Dash styles, which tell lines apart when colours repeat."""
LEVELS = 256
"""Number of entries of a colour map."""
_DIVERGING = ((-1.0, "#d9efff"), (-0.5, "#3b8fe0"), (0.0, "#0d0e10"), (0.5, "#d9730d"), (1.0, "#ffe9c2"))
"""Blue, near black, orange: large differences attract the eye, and areas without differences stay dark in a dark room."""
_SEQUENTIAL = (
    (0, "#00224d"), (20, "#003070"), (23, "#003170"), (28, "#11356f"), (45, "#2e416c"),
    (145, "#8c8878"), (202, "#c6b567"), (221, "#dac65a"), (251, "#fde234"), (255, "#fde737"),
)  # fmt: skip
"""Cividis, to within 4 of 255 in every channel; defined here because every report needs it and matplotlib is optional."""


def grey_map() -> np.ndarray:
    """Colour map from black to white, (256, 3) uint8."""
    return np.repeat(np.arange(LEVELS, dtype=np.uint8)[:, None], 3, axis=1)


def difference_map() -> np.ndarray:
    """Colour map, (256, 3) uint8: blue below zero, near black at zero, orange above, equally light at -x and +x.

    Blue and orange can be told apart with every common colour vision deficiency, and lightness alone shows how large a
    difference is.
    """
    return _between(_DIVERGING, np.linspace(-1, 1, LEVELS))


def sequential_map() -> np.ndarray:
    """Cividis, (256, 3) uint8: dark blue to yellow, designed for colour vision deficiencies (Nunez et al., PLoS ONE 13, 2018)."""
    return _between(_SEQUENTIAL, np.arange(LEVELS))


def _between(stops: Sequence[tuple[float, str]], places: np.ndarray) -> np.ndarray:
    """Colours (n, 3), uint8, at ``places``, interpolated linearly between the stops."""
    at = np.array([place for place, _ in stops])
    colours = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for _, text in stops], dtype=np.float64)
    return np.stack([np.interp(places, at, colours[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)


def as_hex(colours: np.ndarray) -> str:
    """A colour map as one text with six hexadecimal digits per colour.

    >>> as_hex(grey_map())[:12]
    '000000010101'
    """
    return np.ascontiguousarray(colours, dtype=np.uint8).tobytes().hex()
