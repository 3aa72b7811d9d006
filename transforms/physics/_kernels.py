"""Compiled inner loops of the projector and back projectors, and the threads that run them.

The loops release the global interpreter lock and run in plain Python threads, not in Numba's parallel regions: those use
GNU OpenMP, and a process forked afterwards, such as a PyTorch DataLoader worker, would be killed at its first call
("fork() called from a process already using GNU OpenMP"). Each thread writes its own rows, so the result does not depend
on the number of threads. NUMBA_NUM_THREADS limits that number.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from ct_cncl.transforms.common.compiled import compiled

# Without the assumption that NaN and infinity never occur: a NaN in the input must show in the result.
SAFE_FASTMATH = {"arcp", "contract", "nsz", "reassoc"}
# Numba stores the module's name in its cache, next to the file. If the module is imported under another name (pytest's
# doctests collect it as transforms.physics._kernels), that cache would break `import ct_cncl.transforms.physics`.
CACHE = __name__.startswith("ct_cncl.")
EDGE = 1e-3
"""Indices stay this far inside the zero-padded line, so that rounding to float32 cannot take them outside."""

_worker = threading.local()


def run_in_threads(work: Callable[[int, int], None], count: int, blocks_per_thread: int = 4) -> None:
    """Call ``work(start, stop)`` for consecutive blocks of ``range(count)``, in as many threads as Numba would use.

    Called from within such a thread, it runs the whole range in that thread: only the outermost loop is threaded.
    """
    allowed: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = max(1, min(allowed, count))
    edges = np.linspace(0, count, min(count, threads * blocks_per_thread) + 1).astype(int)
    blocks = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    if threads == 1 or getattr(_worker, "busy", False):
        work(0, count)
        return

    def begin() -> None:
        _worker.busy = True

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        for future in [pool.submit(work, start, stop) for start, stop in blocks]:
            future.result()


@compiled(cache=CACHE)
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


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def _add_line(line: np.ndarray, base: float, slope: float, out: np.ndarray) -> None:
    """``out[k] += line(base + k * slope)`` with linear interpolation; ``line`` is zero-padded by one sample at each end."""
    start, stop = _inside(base, slope, out.size, line.size - 1.0)
    base32, slope32 = np.float32(base), np.float32(slope)
    for k in range(start, stop):
        position = base32 + np.float32(k) * slope32
        index = np.uint32(np.int32(position))
        weight = position - np.float32(index)
        left = line[index]
        out[k] += left + weight * (line[index + np.uint32(1)] - left)


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def _add_rays(  # noqa: PLR0917, compiled functions are called by position
    line: np.ndarray, base: np.ndarray, slope: np.ndarray, n: float, start: int, stop: int, out: np.ndarray
) -> None:
    """``out[c] += line(base[c] + n * slope[c])`` for channels ``start`` to ``stop``, all inside the padded line."""
    n32 = np.float32(n)
    for channel in range(start, stop):
        position = base[channel] + n32 * slope[channel]
        index = np.uint32(np.int32(position))
        weight = position - np.float32(index)
        left = line[index]
        out[channel] += left + weight * (line[index + np.uint32(1)] - left)


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def _narrow(  # noqa: PLR0917
    base: np.ndarray, slope: np.ndarray, n: np.float32, low: np.float32, high: np.float32, start: int, stop: int
) -> tuple[int, int]:
    """``start`` to ``stop`` without the channels at either end that miss line n."""
    while start < stop and not low <= base[start] + n * slope[start] <= high:
        start += 1
    while stop > start and not low <= base[stop - 1] + n * slope[stop - 1] <= high:
        stop -= 1
    return start, stop


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def _add_run(  # noqa: PLR0917
    lines: np.ndarray, base: np.ndarray, slope: np.ndarray, first: int, last: int, out: np.ndarray
) -> None:
    """Sum over all lines for the neighbouring channels ``first`` to ``last``, whose rays cross the lines in order.

    The range of channels that meet line n changes little from one line to the next, so only its two ends are moved.
    """
    low, high = np.float32(EDGE), np.float32(lines.shape[1] - 1 - EDGE)
    start, stop = first, last
    for n in range(lines.shape[0]):
        n32 = np.float32(n)
        # At either end, add the channels that now meet the line, then drop those that no longer do.
        while start > first and low <= base[start - 1] + n32 * slope[start - 1] <= high:
            start -= 1
        while stop < last and low <= base[stop] + n32 * slope[stop] <= high:
            stop += 1
        start, stop = _narrow(base, slope, n32, low, high, start, stop)
        if start == stop:  # no channel left from the previous line: search all of them
            start, stop = _narrow(base, slope, n32, low, high, first, last)
        _add_rays(lines[n], base, slope, n, start, stop, out)


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def project_views(  # noqa: PLR0917
    along_y: np.ndarray,
    along_x: np.ndarray,
    angles: np.ndarray,
    fan_angles: np.ndarray,
    positions_mm: np.ndarray,
    pixel: tuple[float, float],
    start: int,
    stop: int,
    sinogram: np.ndarray,
) -> None:
    """Write the Joseph line integrals of views ``start`` to ``stop`` into ``sinogram`` (views, channels), which must be 0.

    ``along_y`` (ny, nx + 2) and ``along_x`` (nx, ny + 2) hold the image with its lines zero-padded at both ends.
    """
    dx, dy = pixel
    ny, nx = along_y.shape[0], along_x.shape[0]
    channels = fan_angles.size
    base = np.empty(channels, np.float32)
    slope = np.empty(channels, np.float32)
    pitch = np.empty(channels, np.float32)
    steep = np.empty(channels, np.bool_)
    for view in range(start, stop):
        for channel in range(channels):
            cosine, sine = math.cos(angles[view] + fan_angles[channel]), math.sin(angles[view] + fan_angles[channel])
            # The dominant axis is the one along which a ray crosses more pixels per mm.
            steep[channel] = abs(cosine) * dx >= abs(sine) * dy
            if steep[channel]:
                line_mm, across, length = dy * sine, cosine * dx, dy / abs(cosine)
                middle, lines_middle = (nx - 1) / 2 + 1, (ny - 1) / 2
            else:
                line_mm, across, length = dx * cosine, sine * dy, dx / abs(sine)
                middle, lines_middle = (ny - 1) / 2 + 1, (nx - 1) / 2
            base[channel] = (positions_mm[channel] + lines_middle * line_mm) / across + middle
            slope[channel] = -line_mm / across
            pitch[channel] = length
        row = sinogram[view]
        first = 0
        while first < channels:
            last = first + 1
            while last < channels and steep[last] == steep[first]:
                last += 1
            _add_run(along_y if steep[first] else along_x, base, slope, first, last, row)
            first = last
        for channel in range(channels):
            row[channel] *= pitch[channel]


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def back_project_rows(  # noqa: PLR0917
    padded: np.ndarray,
    angles: np.ndarray,
    pixel: tuple[float, float],
    spacing: float,
    start: int,
    stop: int,
    image: np.ndarray,
) -> None:
    """Sum over parallel views for rows ``start`` to ``stop`` of ``image`` (nx, ny), which must be 0.

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


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def arctangent(ratio: np.float32) -> np.float32:
    """Arc tangent of a float32 in [-1, 1], accurate to 1e-7 radian, in a form that compilers vectorise.

    Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 4.4.49.
    """
    square = ratio * ratio
    series = np.float32(0.0028662257)
    series = series * square - np.float32(0.0161657367)
    series = series * square + np.float32(0.0429096138)
    series = series * square - np.float32(0.0752896400)
    series = series * square + np.float32(0.1065626393)
    series = series * square - np.float32(0.1420889944)
    series = series * square + np.float32(0.1999355085)
    series = series * square - np.float32(0.3333314528)
    return ratio + ratio * square * series


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def _add_fan_line(  # noqa: PLR0917
    line: np.ndarray,
    depth: float,
    depth_step: float,
    side: float,
    side_step: float,
    per_mm: float,
    curved: bool,
    out: np.ndarray,
) -> None:
    """``out[k] += line(channel of pixel k) / distance^2`` for a row of pixels; see :func:`back_project_fan_rows`."""
    middle, low, high = np.float32((line.size - 2) / 2), np.float32(0), np.float32(line.size - 2)
    depth32, depth_step32 = np.float32(depth), np.float32(depth_step)
    side32, side_step32, scale = np.float32(side), np.float32(side_step), np.float32(per_mm)
    one = np.float32(1)
    for k in range(out.size):
        along = depth32 + np.float32(k) * depth_step32
        across = side32 + np.float32(k) * side_step32
        # A fan is narrower than 90 degrees: no channel sees a ratio beyond 1, and clamping keeps it off the detector.
        ratio = min(max(across / along, -one), one)
        if curved:
            position = middle + scale * arctangent(ratio)
            power = one / (along * along + across * across)
        else:
            position = middle + scale * ratio
            power = one / (along * along)
        position = min(max(position, low), high)
        index = np.uint32(np.int32(position))
        weight = position - np.float32(index)
        left = line[index]
        out[k] += power * (left + weight * (line[index + np.uint32(1)] - left))


@compiled(cache=CACHE, fastmath=SAFE_FASTMATH)
def back_project_fan_rows(  # noqa: PLR0917
    padded: np.ndarray,
    angles: np.ndarray,
    pixel: tuple[float, float],
    source_mm: float,
    per_mm: float,
    curved: bool,
    start: int,
    stop: int,
    image: np.ndarray,
) -> None:
    """Sum over fan views, weighted with 1/distance^2, for rows ``start`` to ``stop`` of ``image`` (nx, ny), all 0 before.

    Seen from the source, a pixel lies ``along`` mm down the central ray and ``across`` mm to its side; the distance is that
    from the source (curved detector) or ``along`` (flat). ``per_mm`` is channels per radian (curved) or per unit of
    across / along (flat). ``padded`` (views, channels + 3) has one zero before each view and two after it.
    """
    dx, dy = pixel
    nx, ny = image.shape
    y = -(ny - 1) / 2 * dy
    for view in range(padded.shape[0]):
        cosine, sine = math.cos(angles[view]), math.sin(angles[view])
        for i in range(start, stop):
            x = (i - (nx - 1) / 2) * dx
            along, across = source_mm + x * sine - y * cosine, x * cosine + y * sine
            _add_fan_line(padded[view], along, -dy * cosine, across, dy * sine, per_mm, curved, image[i])
