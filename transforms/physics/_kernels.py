"""Compiled inner loops of projector and back projector, and the threads they share.

The loops are compiled without the global lock and run in plain Python threads, not in Numba's parallel regions: with
those (GNU OpenMP), a process forked later, such as a PyTorch DataLoader worker, is killed at its first call ("fork()
called from a process already using GNU OpenMP"). Each thread writes rows of its own, so the result does not depend on
the number of threads. NUMBA_NUM_THREADS limits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

# Everything but the assumption that no NaN or infinity occurs: a NaN that comes in must be seen in the result.
SAFE_FASTMATH = {"arcp", "contract", "nsz", "reassoc"}
# Numba stores the module's name in its cache beside the file. Imported under another name (pytest's doctests collect
# this file as transforms.physics._kernels), it would leave a cache that breaks `import ct_cncl.transforms.physics`.
CACHE = __name__.startswith("ct_cncl.")
EDGE = 1e-3
"""Indices stay this far inside the zero-padded line, so that rounding to float32 cannot leave it."""


def run_in_threads(work: Callable[[int, int], None], count: int, blocks_per_thread: int = 4) -> None:
    """Call ``work(start, stop)`` for consecutive blocks of ``range(count)``, in as many threads as Numba would use."""
    allowed: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = max(1, min(allowed, count))
    edges = np.linspace(0, count, min(count, threads * blocks_per_thread) + 1).astype(int)
    blocks = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    if threads == 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, start, stop) for start, stop in blocks]:
            future.result()


@numba.njit(nogil=True, cache=CACHE)
def _inside(base: float, slope: float, count: int, limit: float) -> tuple[int, int]:
    """First and one past the last ``k`` in ``range(count)`` with ``EDGE <= base + k * slope <= limit - EDGE``."""
    low, high = EDGE, limit - EDGE
    if abs(slope) < 1e-9:
        return (0, count) if low <= base <= high else (0, 0)
    first = (low - base) / slope
    last = (high - base) / slope
    if slope < 0:
        first, last = last, first
    start = max(0, math.ceil(first))
    return start, max(start, min(count, math.floor(last) + 1))


@numba.njit(nogil=True, cache=CACHE, fastmath=SAFE_FASTMATH)
def _add_line(line: np.ndarray, base: float, slope: float, out: np.ndarray) -> None:
    """``out[k] += line(base + k * slope)``, linear interpolation; ``line`` is zero-padded by one sample at each end."""
    start, stop = _inside(base, slope, out.size, line.size - 1.0)
    base32, slope32 = np.float32(base), np.float32(slope)
    for k in range(start, stop):
        position = base32 + np.float32(k) * slope32
        index = np.uint32(np.int32(position))
        weight = position - np.float32(index)
        left = line[index]
        out[k] += left + weight * (line[index + np.uint32(1)] - left)


@numba.njit(nogil=True, cache=CACHE, fastmath=SAFE_FASTMATH)
def project_views(  # noqa: PLR0917, compiled functions are called by position
    along_y: np.ndarray,
    along_x: np.ndarray,
    angles: np.ndarray,
    pixel: tuple[float, float],
    first_mm: float,
    spacing: float,
    start: int,
    stop: int,
    sinogram: np.ndarray,
) -> None:
    """Joseph line integrals of views ``start`` to ``stop`` into ``sinogram`` (views, channels), all zeros before.

    ``along_y`` (ny, nx + 2) and ``along_x`` (nx, ny + 2) hold the image, its lines zero-padded at both ends.
    """
    dx, dy = pixel
    ny, nx = along_y.shape[0], along_x.shape[0]
    for view in range(start, stop):
        cosine, sine = math.cos(angles[view]), math.sin(angles[view])
        row = sinogram[view]
        # The dominant axis is the one of which a ray crosses more pixels per mm.
        if abs(cosine) * dx >= abs(sine) * dy:
            lines, line_mm, across, pitch = along_y, dy * sine, cosine * dx, dy / abs(cosine)
            middle, lines_middle = (nx - 1) / 2 + 1, (ny - 1) / 2
        else:
            lines, line_mm, across, pitch = along_x, dx * cosine, sine * dy, dx / abs(sine)
            middle, lines_middle = (ny - 1) / 2 + 1, (nx - 1) / 2
        for n in range(lines.shape[0]):
            _add_line(lines[n], (first_mm - (n - lines_middle) * line_mm) / across + middle, spacing / across, row)
        for channel in range(row.size):
            row[channel] *= np.float32(pitch)


@numba.njit(nogil=True, cache=CACHE, fastmath=SAFE_FASTMATH)
def back_project_rows(  # noqa: PLR0917
    padded: np.ndarray,
    angles: np.ndarray,
    pixel: tuple[float, float],
    spacing: float,
    start: int,
    stop: int,
    image: np.ndarray,
) -> None:
    """Sum over the views for image rows ``start`` to ``stop`` of ``image`` (nx, ny), which comes in as zeros.

    ``padded`` (views, channels + 2) is the filtered sinogram with a zero at both ends of each view.
    """
    dx, dy = pixel
    nx, ny = image.shape
    middle = (padded.shape[1] - 1) / 2
    for view in range(padded.shape[0]):
        cosine, sine = math.cos(angles[view]) / spacing, math.sin(angles[view]) / spacing
        first = middle - (ny - 1) / 2 * dy * sine
        for i in range(start, stop):
            _add_line(padded[view], first + (i - (nx - 1) / 2) * dx * cosine, dy * sine, image[i])
