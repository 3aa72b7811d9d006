"""Slices as text inside a page: lossless, about half a byte per pixel above what its noise needs, and readable by any browser."""

from __future__ import annotations

import zlib

import numpy as np

NOT_FINITE = -32768
"""Stored value for NaN and infinity; the page says so at such pixels."""
DIGITS = "".join(map(chr, range(35, 120))).replace("&", "|").replace("<", "!")
"""Digits of base 85, five characters for four bytes; none of them has a meaning in HTML."""
_LIMIT = 32767
_LEVEL = 6
"""Level of zlib: 9 takes twice as long and saves half a per cent."""
_PLACES = 85 ** np.arange(4, -1, -1, dtype=np.int64)


def pack_plane(hu: np.ndarray, *, step: float = 1.0) -> str:
    """Pack a slice as base 85 of zlib of prediction errors, with folded signs, low bytes first.

    Each pixel is predicted as the median of its left neighbour, its upper neighbour, and the plane through these two and the
    pixel between them: flat in flat regions, steep at edges. The errors are small, so that nearly all high bytes, which are
    stored after the low ones, are zero. A browser undoes zlib with ``DecompressionStream("deflate")``; the rest is a sum from
    pixel to pixel.

    Args:
        hu: (columns, rows), HU; axis 0 runs along a picture's rows of pixels.
        step: HU between two stored values; values are rounded to steps, and clipped beyond 32767 steps.

    Returns:
        ASCII text, which the page's script unpacks.

    Raises:
        ValueError: ``hu`` is not a plane, or ``step`` is not positive.

    Source: Weinberger, Seroussi and Sapiro 2000, The LOCO-I lossless image compression algorithm, equation 1, for the median.

    >>> plane = np.random.default_rng(0).normal(40, 10, (64, 64))
    >>> len(pack_plane(plane)) < plane.size * 2  # less than the 2 bytes of an int16
    True
    """
    if hu.ndim != 2 or 0 in hu.shape:
        raise ValueError(f"Expected a slice (columns, rows), but got shape {hu.shape}.")
    if not step > 0:
        raise ValueError(f"Expected a step above 0 HU, but got {step}.")
    scaled = np.asarray(hu, dtype=np.float64).T / step
    finite = np.isfinite(scaled)
    stored = np.where(finite, np.rint(np.clip(np.nan_to_num(scaled), -_LIMIT, _LIMIT)), NOT_FINITE).astype(np.int32)
    around = np.pad(stored, ((1, 0), (1, 0)))  # 0 beyond the first row and column
    left, above, between = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    expected = np.clip(left + above - between, np.minimum(left, above), np.maximum(left, above))
    change = (
        stored - expected + 2**15
    ) % 2**16 - 2**15  # wraps like 16-bit arithmetic; unpacking wraps in the same way
    folded = np.where(change < 0, -2 * change - 1, 2 * change).astype(np.uint16)
    planes = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    # Z_FILTERED: the errors are noise, for which matches of three bytes do not pay off.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return packed_text(packer.compress(planes) + packer.flush())


def packed_text(data: bytes) -> str:
    """Encode bytes in base 85 with :data:`DIGITS`; the last group is as short as its bytes allow.

    >>> len(packed_text(bytes(8))), len(packed_text(bytes(9)))
    (10, 12)
    """
    lacking = -len(data) % 4
    words = np.frombuffer(data + bytes(lacking), ">u4").astype(np.int64)
    digits = (words[:, None] // _PLACES % 85).ravel()
    alphabet = np.frombuffer(DIGITS.encode("ascii"), np.uint8)
    return alphabet[digits[: digits.size - lacking]].tobytes().decode("ascii")
