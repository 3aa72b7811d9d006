"""Slices as text inside a page: exact, about half a byte more than the noise in a pixel needs, and unpacked by any browser."""

from __future__ import annotations

import base64
import zlib

import numpy as np

NOT_FINITE = -32768
"""Stored where a value is NaN or infinite; the page says so there."""
_LIMIT = 32767
_LEVEL = 6
"""Of zlib: 9 takes twice as long and saves half a per cent."""


def pack_plane(hu: np.ndarray, *, step: float = 1.0) -> str:
    """A slice as base64 of zlib: differences along the rows of pixels, their signs folded, low bytes before high bytes.

    Neighbours in a CT slice are alike, so that differences are small; apart from the low bytes, the high bytes are nearly all
    zero. A browser undoes the zlib part by ``DecompressionStream("deflate")``, the rest is a running sum.

    Args:
        hu: (columns, rows), HU; axis 0 runs along a picture's rows of pixels.
        step: HU between two stored values; values are rounded to it, and beyond 32767 steps clipped.

    Returns:
        ASCII text. ``unpack_plane`` is the inverse.

    Raises:
        ValueError: not a plane, or a step that is not positive.

    >>> text = pack_plane(np.arange(6.0).reshape(3, 2) - 1024)
    >>> unpack_plane(text, (3, 2)).tolist()
    [[-1024.0, -1023.0], [-1022.0, -1021.0], [-1020.0, -1019.0]]
    """
    if hu.ndim != 2 or 0 in hu.shape:
        raise ValueError(f"Expected a slice (columns, rows), but got shape {hu.shape}.")
    if not step > 0:
        raise ValueError(f"Expected a step above 0 HU, but got {step}.")
    scaled = np.asarray(hu, dtype=np.float64).T / step
    finite = np.isfinite(scaled)
    stored = np.where(finite, np.rint(np.clip(np.nan_to_num(scaled), -_LIMIT, _LIMIT)), NOT_FINITE).astype(np.int32)
    change = np.diff(stored, axis=1, prepend=0)
    change = (change + 2**15) % 2**16 - 2**15  # as 16-bit arithmetic wraps: undone by the same on the way back
    folded = np.where(change < 0, -2 * change - 1, 2 * change).astype(np.uint16)
    planes = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    # Z_FILTERED: what is left after the differences is noise, for which matches of three bytes only cost.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return base64.b64encode(packer.compress(planes) + packer.flush()).decode("ascii")


def unpack_plane(text: str, shape: tuple[int, int], *, step: float = 1.0) -> np.ndarray:
    """The inverse of :func:`pack_plane`, as the page does it.

    Args:
        text: packed.
        shape: (columns, rows).
        step: HU between two stored values.

    Returns:
        (columns, rows) float32, HU; NaN where the value was not finite.

    Raises:
        ValueError: a text of another size.
    """
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, shape[1], shape[0])
    folded = low.astype(np.int64) | (high.astype(np.int64) << 8)
    change = np.where(folded & 1, -(folded + 1) // 2, folded // 2)
    stored = change.cumsum(axis=1).astype(np.int16)
    hu = np.where(stored == NOT_FINITE, np.nan, stored * np.float64(step))
    return np.ascontiguousarray(hu.T.astype(np.float32))
