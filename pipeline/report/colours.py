"""Colours of the report: told apart also with a colour vision deficiency, on a dark screen and on paper."""

from __future__ import annotations

import numpy as np

SERIES = 8
"""Colours of lines; theme.css defines them as --series-0 ..., for the screen and for paper."""
DASHES = ("-", "--", ":", "-.")
"""Lines beyond the colours are told apart by these."""
LEVELS = 256
"""Entries of a colour map."""
_DIVERGING = ((-1.0, "#d9efff"), (-0.5, "#3b8fe0"), (0.0, "#0d0e10"), (0.5, "#d9730d"), (1.0, "#ffe9c2"))
"""Blue, near black, orange: the eye is led to large differences, and a dark room stays dark where there are none."""


def grey_map() -> np.ndarray:
    """Black to white, (256, 3) uint8."""
    return np.repeat(np.arange(LEVELS, dtype=np.uint8)[:, None], 3, axis=1)


def difference_map() -> np.ndarray:
    """Blue below zero, near black at zero, orange above, (256, 3) uint8; as light at -x as at +x.

    Blue and orange are told apart with every common colour vision deficiency, and lightness alone already shows how large a
    difference is.
    """
    places = np.linspace(-1, 1, LEVELS)
    stops = np.array([place for place, _ in _DIVERGING])
    colours = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for _, text in _DIVERGING], dtype=np.float64)
    return np.stack([np.interp(places, stops, colours[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)


def sequential_map() -> np.ndarray:
    """Cividis, (256, 3) uint8: dark blue to yellow, made for colour vision deficiencies (Nunez et al., PLoS ONE 13, 2018)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["cividis"](np.arange(LEVELS), bytes=True))[:, :3]


def as_hex(colours: np.ndarray) -> str:
    """A colour map as one text, six digits a colour.

    >>> as_hex(grey_map())[:12]
    '000000010101'
    """
    return np.ascontiguousarray(colours, dtype=np.uint8).tobytes().hex()
