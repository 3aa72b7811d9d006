"""Slices as text inside a page: exact, about half a byte more than the noise in a pixel needs, and unpacked by any browser."""

from __future__ import annotations

import zlib

import numpy as np

NOT_FINITE = -32768
"""Stored where a value is NaN or infinite; the page says so there."""
DIGITS = "".join(map(chr, range(35, 120))).replace("&", "|").replace("<", "!")
"""Of base 85: five characters for four bytes, none of which means anything in HTML."""
_LIMIT = 32767
_LEVEL = 6
"""Of zlib: 9 takes twice as long and saves half a per cent."""
_PLACES = 85 ** np.arange(4, -1, -1, dtype=np.int64)


def pack_plane(hu: np.ndarray, *, step: float = 1.0) -> str:
    """A slice as base 85 of zlib: differences to what three neighbours let expect, their signs folded, low bytes first.

    A pixel is expected to be the median of its left neighbour, the one above, and the plane through both and the one between
    them: flat where the image is flat, steep at its edges. What is left is small; apart from the low bytes, the high bytes are
    nearly all zero. A browser undoes the zlib part by ``DecompressionStream("deflate")``, the rest is a sum from pixel to pixel.

    Args:
        hu: (columns, rows), HU; axis 0 runs along a picture's rows of pixels.
        step: HU between two stored values; values are rounded to it, and beyond 32767 steps clipped.

    Returns:
        ASCII text. ``unpack_plane`` is the inverse.

    Raises:
        ValueError: not a plane, or a step that is not positive.

    Source: of the median, Weinberger, Seroussi and Sapiro 2000, The LOCO-I lossless image compression algorithm, equation 1.

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
    ) % 2**16 - 2**15  # as 16-bit arithmetic wraps: undone by the same on the way back
    folded = np.where(change < 0, -2 * change - 1, 2 * change).astype(np.uint16)
    planes = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    # Z_FILTERED: what is left after the differences is noise, for which matches of three bytes only cost.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return packed_text(packer.compress(planes) + packer.flush())


def packed_text(data: bytes) -> str:
    """Bytes as base 85 in :data:`DIGITS`; the last group is as short as its bytes allow.

    >>> len(packed_text(bytes(8))), len(packed_text(bytes(9)))
    (10, 12)
    """
    lacking = -len(data) % 4
    words = np.frombuffer(data + bytes(lacking), ">u4").astype(np.int64)
    digits = (words[:, None] // _PLACES % 85).ravel()
    alphabet = np.frombuffer(DIGITS.encode("ascii"), np.uint8)
    return alphabet[digits[: digits.size - lacking]].tobytes().decode("ascii")
