"""Unpacks planes of a report as the page does: the inverse of ct_cncl.pipeline.report.packing."""

from __future__ import annotations

import zlib

import numpy as np

from ct_cncl.pipeline.report.packing import _PLACES, DIGITS, NOT_FINITE


def unpack_plane(text: str, shape: tuple[int, int], *, step: float = 1.0) -> np.ndarray:
    """The inverse of :func:`pack_plane`, as the page computes it.

    Args:
        text: packed.
        shape: (columns, rows).
        step: HU between two stored values.

    Returns:
        (columns, rows) float32, HU; NaN where the value was not finite.

    Raises:
        ValueError: a text of another size.
    """
    columns, rows = shape
    low, high = np.frombuffer(zlib.decompress(bytes_of(text)), np.uint8).reshape(2, rows, columns)
    folded = low.astype(np.int64) | (high.astype(np.int64) << 8)
    changes = np.where(folded & 1, -(folded + 1) // 2, folded // 2).tolist()
    above = [0] * (columns + 1)
    stored = []
    for row in changes:
        here = [0]
        for column, change in enumerate(row):
            left, over, between = here[-1], above[column + 1], above[column] if column else 0
            expected = min(max(left + over - between, min(left, over)), max(left, over))
            here.append((expected + change + 2**15) % 2**16 - 2**15)
        stored.append(here[1:])
        above = here
    values = np.array(stored)
    hu = np.where(values == NOT_FINITE, np.nan, values * np.float64(step))
    return np.ascontiguousarray(hu.T.astype(np.float32))


def bytes_of(text: str) -> bytes:
    """The inverse of :func:`text_of`."""
    lacking = -len(text) % 5
    place = np.zeros(128, dtype=np.int64)
    place[np.frombuffer(DIGITS.encode("ascii"), np.uint8)] = np.arange(85)
    digits = place[np.frombuffer((text + DIGITS[-1] * lacking).encode("ascii"), np.uint8)].reshape(-1, 5)
    data = (digits @ _PLACES).astype(">u4").tobytes()
    return data[: len(data) - lacking]
