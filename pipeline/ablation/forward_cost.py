"""Cost of one forward pass: the number of operations, and seconds and memory measured in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

STATUS = Path("/proc/self/status")
"""Where Linux reports the memory of a process, now and at its peak."""


class ForwardCost(NamedTuple):
    """Measured costs of denoising one slice on the CPU."""

    seconds: float
    """Median of the timed passes, after one warm-up."""
    peak_mib: float
    """Peak memory of a fresh process minus what it held after its imports: weights, activations and buffers."""
    threads: int


def gmac(network: nn.Module, *, size: int, channels: int = 1) -> float:
    """Multiply-accumulate operations for one ``size`` x ``size`` slice, in 1e9: half the count of torch's flop counter.

    Only convolutions and matrix products count, as is usual for such figures.

    Args:
        network: on torch's "meta" device, where nothing is computed.
        size: side of the slice in pixels.
        channels: number of slices in the input.

    >>> with torch.device("meta"):
    ...     convolution = nn.Conv2d(1, 64, 3, padding=1)
    >>> gmac(convolution, size=512) == 512 * 512 * 64 * 9 / 1e9
    True
    """
    image = torch.empty(1, channels, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    return counter.get_total_flops() / 2 / 1e9


def measure_in_process(
    definition: Mapping[str, Any], *, size: int, channels: int = 1, repeats: int = 3, threads: int | None = None
) -> ForwardCost:
    """Build the network in a fresh Python process on the CPU, denoise random noise there, and measure the cost.

    Args:
        definition: the config keys of the network.
        size: side of the slice in pixels.
        channels: number of slices in the input.
        repeats: number of timed passes.
        threads: threads for torch; None for torch's default.

    Raises:
        RuntimeError: the process failed, perhaps for lack of memory.
    """
    task = {"definition": definition, "size": size, "channels": channels, "repeats": repeats, "threads": threads}
    done = subprocess.run(
        [sys.executable, "-m", "ct_cncl.pipeline.ablation.forward_cost"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(
            f"Expected the measurement to finish, but its process ended with {done.returncode}: {reason}. Try a smaller --size."
        )
    return ForwardCost(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(
    definition: Mapping[str, Any], *, size: int, channels: int, repeats: int, threads: int | None
) -> ForwardCost:
    """Do the same as :func:`measure_in_process` in this process, which should be fresh, since its peak memory never decreases."""
    from monai.bundle import ConfigParser

    if threads is not None:
        torch.set_num_threads(threads)
    before = memory_mib("VmRSS")
    parser = ConfigParser()
    parser.read_config(dict(definition))
    network = parser.get_parsed_content("network_def").eval()
    image = torch.rand(1, channels, size, size)
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + repeats):
            started = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - started)
    return ForwardCost(median(seconds[1:]), memory_mib("VmHWM") - before, torch.get_num_threads())


def memory_mib(field: str) -> float:
    """Resident memory in MiB: "VmRSS" is now, "VmHWM" the peak. On Linux, getrusage's peak would include the parent's from before exec."""
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) / 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


if __name__ == "__main__":
    print(json.dumps(measure_here(**json.load(sys.stdin))._asdict()))  # noqa: T201
