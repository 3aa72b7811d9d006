"""Denoising a scan slice by slice. While a batch is in the network, the next one is read and the previous one is written."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from ct_cncl.pipeline.inference.target_dose import MOST
from ct_cncl.pipeline.networks import centre_slice
from ct_cncl.pipeline.weights.domain import outside, sampled, scan_domain
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.anatomy.regions import padding_as_air
from ct_cncl.transforms.common.hu import HU_RANGE, to_hu, to_network
from ct_cncl.transforms.common.numbers import is_whole
from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.derivation import REMOVED
from ct_cncl.transforms.series.results import ResultWriter
from ct_cncl.transforms.series.slices import Slice, Slices
from ct_cncl.transforms.series.values import RESULT, keep_padding, with_strength

BRANCHES = ("noise", "content", "disagreement")
"""What can be saved besides the result: the branches from weights that have them, and what was removed from any weights."""
SAVED = (*BRANCHES, REMOVED)
_CPU_BATCH = range(2, 9)
"""Slices per batch on the CPU: one per thread of torch, within these bounds."""
_MOST_HU = 1e6
"""No CT number is this large: even on an extended scale, metal has about 30000 HU."""
_MOST_AT_ONCE = 32
_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class Settings:
    """How to apply a network.

    Attributes:
        strength: 0 to 2; the result is the scan plus this multiple of the network's correction. 0 returns the scan bit for bit; values
            above 1 are for target doses beyond the one that the weights were trained for.
        save: further results, from :data:`SAVED`.
        batch_size: slices per batch; None to choose it for the device.

    Raises:
        ValueError: a value is outside its range.
    """

    strength: float = 1.0
    save: tuple[str, ...] = ()
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= MOST:
            raise ValueError(f"Expected a strength from 0 to {MOST:g}, but got {self.strength}.")
        unknown = sorted(set(self.save) - set(SAVED))
        if unknown:
            raise ValueError(f"Expected save to name any of {', '.join(SAVED)}, but got {', '.join(unknown)}.")
        if self.batch_size is not None and not is_whole(self.batch_size):
            raise ValueError(f"Expected a batch size of at least 1, but got {self.batch_size!r}.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """All results, each once."""
        return (RESULT, *dict.fromkeys(self.save))

    @property
    def branches(self) -> tuple[str, ...]:
        """What the network's branches must provide."""
        return tuple(kind for kind in self.kinds if kind in BRANCHES)


@dataclass
class Outcome:
    """The outcome of processing one scan.

    Attributes:
        slices: number of slices processed.
        voxels: number of voxels in them.
        seconds: total time.
        network_seconds: time spent in the network.
        warnings: what is unusual about the scan.
        middle: input and result of the middle slice, (columns, rows), HU.
        facts: further content of the record.
    """

    slices: int = 0
    voxels: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    middle: tuple[np.ndarray, np.ndarray] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def check_save(weights: Weights, settings: Settings) -> None:
    """Refuse to save branches if the weights have none.

    Raises:
        ValueError: names what was asked for.
    """
    if settings.branches and not weights.has_branches:
        raise ValueError(
            f"Expected weights that give content and noise, to save {', '.join(settings.branches)}, but these have a single output. "
            "Use the run's checkpoint (best.pt), or export with branches."
        )


def apply_network(weights: Weights, stack: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """Denoise slices.

    Args:
        weights: the network.
        stack: (n, slices, columns, rows) float32 HU, each slice in the centre of its neighbours.
        settings: the strength, and which branches to return.

    Returns:
        By kind, each (n, columns, rows) float32 HU: "denoised", and those of the branches that ``settings.save`` names.
    """
    if settings.strength == 0 and not settings.branches:
        return {RESULT: stack[:, stack.shape[1] // 2]}
    threads = torch.get_num_threads()
    if weights.device.type != "cpu" or weights.own_threads or threads == 1 or len(stack) == 1:
        return _applied(weights, stack, settings)
    count = min(threads, len(stack), _CPU_BATCH.stop - 1)
    workers = _workers(count, threads // count)
    try:
        each = list(workers.map(lambda one: _applied(weights, one[None], settings), stack))
    finally:
        torch.set_num_threads(threads)  # a worker's own setting also becomes torch's default for new threads
    return {name: np.concatenate([images[name] for images in each]) for name in (RESULT, *settings.branches)}


@cache
def _workers(count: int, threads: int) -> ThreadPoolExecutor:
    """Workers that process one slice each and share torch's threads equally (one each if there are no more threads than slices).

    If all threads shared one slice, each layer would be as slow as the slowest thread. Reading and writing occupy a core now and
    then, and all other threads would wait for it.
    """
    return ThreadPoolExecutor(count, "network", initializer=torch.set_num_threads, initargs=(threads,))


def _applied(weights: Weights, stack: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    hu = stack[:, stack.shape[1] // 2]
    image = to_network(torch.from_numpy(padding_as_air(stack)).to(weights.device))
    with torch.inference_mode():
        if settings.branches:
            predicted = weights.branches(image)
            fused = predicted.fused
        else:
            fused = weights.network(image)
    results = {RESULT: with_strength(hu, _numpy(to_hu(fused)), settings.strength)}
    if settings.branches:
        images = {
            "noise": predicted.noise * HU_RANGE,
            "content": to_hu(predicted.content),
            "disagreement": (predicted.content - (centre_slice(image) - predicted.noise)).abs() * HU_RANGE,
        }
        results |= {name: _numpy(images[name]) for name in settings.branches}
    return results


def _numpy(image: torch.Tensor) -> np.ndarray:
    return image[:, 0].float().cpu().numpy()


def batch_for(weights: Weights, shape: tuple[int, int], settings: Settings) -> int:
    """Slices per batch: ``batch_size`` if set; on CUDA a power of 2, up to 32, that fits half of the free memory; on the CPU 2 to 8.

    Args:
        weights: the network.
        shape: (columns, rows) of a slice.
        settings: its ``batch_size`` takes precedence.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    if weights.device.type != "cuda":
        return min(max(torch.get_num_threads(), _CPU_BATCH.start), _CPU_BATCH.stop - 1)
    with torch.inference_mode():
        torch.cuda.reset_peak_memory_stats(weights.device)
        before = torch.cuda.memory_allocated(weights.device)
        weights.network(torch.zeros(1, weights.slices, *shape, device=weights.device))
        one = max(torch.cuda.max_memory_allocated(weights.device) - before, 1)
    free, _ = torch.cuda.mem_get_info(weights.device)
    fits = max(int(free * _SHARE_OF_MEMORY / one), 1)
    return min(2 ** int(math.log2(fits)), _MOST_AT_ONCE)


def scan_warnings(slices: Slices, weights: Weights, strength: float = 1.0) -> list[str]:
    """Warnings about a scan before it is denoised: on its geometry, properties outside the training data, and strengths above 1."""
    how = "one by one" if weights.slices == 1 else "with those beside them, of the same phase,"
    warnings = [f"{problem}; slices are denoised {how} anyway" for problem in slices.problems]
    warnings += _strength_warnings(strength)
    if weights.trained_on:
        looked_at = [slices.read(number).hu for number in sampled(slices.count)]
        found = scan_domain(looked_at, [*map(float, slices.spacing[:2]), slices.step], slices.acquisition)
        warnings += outside(found, weights.trained_on)
    return warnings


def _strength_warnings(strength: float) -> list[str]:
    if strength <= 1:
        return []
    return [
        f"strength {strength:.3g} removes more than the network does, so that small low contrasts lose more than it was measured for"
    ]


def volume_warnings(
    slices: np.ndarray, spacing: Sequence[float] | None, weights: Weights, strength: float = 1.0
) -> list[str]:
    """The same as :func:`scan_warnings`, for a volume in memory.

    Args:
        slices: HU, (columns, rows, slices).
        spacing: (3,) in mm; None if unknown, and then nothing that depends on it is checked.
        weights: the network.
        strength: strength with which the network will be applied.
    """
    warnings = _strength_warnings(strength)
    if weights.trained_on:
        looked_at = [slices[..., number].astype(np.float32) for number in sampled(slices.shape[2])]
        found = scan_domain(looked_at, spacing or (1.0, 1.0, 1.0), None)
        if spacing is None:
            found = {key: value for key, value in found.items() if not key.endswith("_mm")}
        warnings += outside(found, weights.trained_on)
    return warnings


def denoise_slices(
    slices: Slices,
    writer: ResultWriter,
    weights: Weights,
    settings: Settings,
    *,
    tick: Callable[[int], object] | None = None,
) -> Outcome:
    """Denoise a whole scan, with memory for a few batches.

    Args:
        slices: the opened scan.
        writer: receives the results; the caller must finish it.
        weights: the network.
        settings: how to apply the network.
        tick: called with the number of slices done since the last call.

    Raises:
        ScanError: slices cannot be read or written, or do not hold HU.
    """
    first = slices.read(0).hu.shape
    return stream_slices(
        slices,
        writer,
        lambda _batch, _read, stack: apply_network(weights, stack, settings),
        size=batch_for(weights, (first[0], first[1]), settings),
        width=weights.slices,
        tick=tick,
    )


def stream_slices(
    slices: Slices,
    writer: ResultWriter,
    apply: Callable[[range, Sequence[Slice], np.ndarray], Mapping[str, np.ndarray]],
    *,
    size: int,
    width: int = 1,
    main: str = RESULT,
    tick: Callable[[int], object] | None = None,
) -> Outcome:
    """Read a scan, apply a function to it and write the results, with memory for a few batches.

    Args:
        slices: the opened scan.
        writer: receives the results; the caller must finish it.
        apply: returns results by kind, each (n, columns, rows) HU, from the slice numbers of a batch, its slices, and their stacks
            (n, width, columns, rows) float32 HU.
        size: slices per batch.
        width: slices in the stack around each slice, which is in the middle.
        main: the kind of result that looks like the scan.
        tick: called with the number of slices done since the last call.

    Raises:
        ScanError: slices cannot be read or written, or do not hold HU.
    """
    started = time.perf_counter()
    outcome = Outcome(slices=slices.count)
    batches = [range(start, min(start + size, slices.count)) for start in range(0, slices.count, size)]
    recent = _Recent(slices, kept=2 * (size + width))
    low, high = math.inf, -math.inf
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as scribe:
        coming = reader.submit(recent.batch, batches[0], width)
        writing: Future[None] = scribe.submit(lambda: None)
        for k, batch in enumerate(batches):
            read, stack = coming.result()
            if k + 1 < len(batches):
                coming = reader.submit(recent.batch, batches[k + 1], width)
            before = time.perf_counter()
            images = apply(batch, read, stack)
            outcome.network_seconds += time.perf_counter() - before
            _refuse_nan(images, slices, stack)
            outcome.voxels += sum(own.hu.size for own in read)
            low, high = min(low, float(stack.min())), max(high, float(stack.max()))
            if slices.count // 2 in batch:
                place = slices.count // 2 - batch.start
                kept = keep_padding({main: images[main][place]}, read[place].hu, read[place].padded)
                outcome.middle = (read[place].hu, kept[main])
            writing.result()
            writing = scribe.submit(_write, writer, batch, read, images)
            if tick is not None:
                tick(len(batch))
        writing.result()
    if low >= 0 and high > low:
        raise ScanError(
            f"{slices.source.path}: expected HU but got values from {low:g} to {high:g}: looks like stored values without "
            "rescale (slope and intercept not applied); convert the scan again with rescale"
        )
    outcome.seconds = time.perf_counter() - started
    return outcome


def _refuse_nan(images: Mapping[str, np.ndarray], slices: Slices, stack: np.ndarray) -> None:
    for name, image in images.items():
        if not np.isfinite(image).all():
            largest = float(np.abs(stack).max())
            if largest > _MOST_HU:
                raise ScanError(
                    f"{slices.source.path}: expected HU but got values up to {largest:g}; replace them, or convert the scan again"
                )
            raise ScanError(
                f"{slices.source.path}: expected finite HU from the network but its {name} image holds NaN or infinity; use other "
                "weights"
            )


def _write(writer: ResultWriter, batch: range, read: Sequence[Slice], images: Mapping[str, np.ndarray]) -> None:
    for place, number in enumerate(batch):
        own = {name: image[place] for name, image in images.items()}
        writer.write(number, read[place], keep_padding(own, read[place].hu, read[place].padded))


class _Recent:
    """The slices read most recently, so that neighbours are not read twice."""

    def __init__(self, slices: Slices, *, kept: int) -> None:
        self.slices, self.kept = slices, kept
        self._known: OrderedDict[int, Slice] = OrderedDict()

    def batch(self, numbers: range, width: int) -> tuple[list[Slice], np.ndarray]:
        """Read slices, and for each the stack of ``width`` slices around it."""
        half = width // 2
        read = [self._read(number) for number in numbers]
        stack = [
            [self._read(self.slices.neighbour(number, step)).hu for step in range(-half, half + 1)]
            if half
            else [own.hu]
            for number, own in zip(numbers, read)
        ]
        return read, np.stack([np.stack(neighbours) for neighbours in stack])

    def _read(self, number: int) -> Slice:
        if number not in self._known:
            self._known[number] = self.slices.read(number)
            if len(self._known) > self.kept:
                self._known.popitem(last=False)
        return self._known[number]
