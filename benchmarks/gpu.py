"""Speed on a GPU in about five minutes: ceilings, inference, training, and the host's time between steps.

    .venv/bin/python benchmarks/gpu.py [--quick] [--json FILE] [--minutes 5]

Measures the shipped network and the paper's CNCL, both untrained. The most important measurements come first; those that do not fit into
--minutes are named and left out. Without a GPU it runs on the CPU; use --quick there, only to see whether it runs. The bytes of a layer are
its input, weights and output, each counted once. A fused kernel moves fewer, so shares of the copy ceiling can exceed 100 % where
torch.compile fuses layers.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import ceiling, dataset, definition, network, options, report, seconds
from torch import nn
from training import PIXEL_ONLY, trained

from ct_cncl.pipeline.ablation.forward_cost import gmac
from ct_cncl.pipeline.networks.precision import autocast
from ct_cncl.pipeline.workflow.overlays import network_without_weights

NETWORKS = ("cncl_fast", "paper")
Result = dict[str, Any]


def copy_ceiling(device: torch.device, *, quick: bool) -> float:
    """Bytes per second, read and written, of a copy on the device."""
    source = torch.empty((2**20 if quick else 2**28), dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / seconds(lambda: target.copy_(source))


def bytes_moved(model: nn.Module, image: torch.Tensor) -> int:
    """Bytes that a network reads and writes for an image: input, weights and output of each module without children."""
    moved = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal moved
        tensors = [one for one in (*inputs, output, *module.parameters(recurse=False)) if isinstance(one, torch.Tensor)]
        moved += sum(one.numel() * one.element_size() for one in tensors)

    hooks = [
        module.register_forward_hook(count) for module in model.modules() if not any(True for _ in module.children())
    ]
    try:
        with torch.inference_mode():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return moved


def graphed(run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> Callable[[], None]:
    """A CUDA graph of one pass: one launch, with no work for the host in between."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(image)
    return graph.replay


def inference(
    name: str, device: torch.device, precision: str, top: dict[str, float], *, quick: bool
) -> Iterator[Result]:
    """Slices per second of a network, as it is and as a CUDA graph, and the share of the ceilings."""
    model = network(name).eval().to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side, batches = (64, (1,)) if quick else (512, (1, 8))
    work = 2e9 * gmac(network_without_weights(definition(name)), size=side)

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast(device, precision):
            return model(image)

    for batch in batches:
        image = torch.rand(batch, 1, side, side, device=device)
        with autocast(device, precision):
            moved = bytes_moved(model, image) / batch
        ways: dict[str, Callable[[], Any]] = {"": lambda image=image: run(image)}  # type: ignore[misc]
        if device.type == "cuda":
            ways[", CUDA graph"] = graphed(run, image)
        for way, call in ways.items():
            each = seconds(call) / batch
            yield {
                "what": f"inference, {name}, {precision}, {side} x {side}, batch {batch}{way}: {1 / each:.1f} slices/s, "
                f"{100 * work / each / top[precision]:.0f} % of the matrix ceiling, {100 * moved / each / top['copy']:.0f} % of the copy ceiling",
                "slices_per_second": 1 / each,
            }


def compiled_inference(name: str, device: torch.device, precision: str, *, quick: bool) -> Iterator[Result]:
    """Slices per second with torch.compile, alone and with CUDA graphs."""
    side = 64 if quick else 512
    image = torch.rand(1, 1, side, side, device=device)
    for mode in ("default", "reduce-overhead") if device.type == "cuda" else ("default",):
        model = network(name).eval().to(device)
        model.compile(mode=mode)
        with torch.inference_mode(), autocast(device, precision):
            started = time.perf_counter()
            model(image)
            first = time.perf_counter() - started
            each = seconds(lambda: model(image))  # noqa: B023
        yield {
            "what": f"inference, {name}, {precision}, torch.compile ({mode}): {1 / each:.1f} slices/s, first slice after {first:.0f} s",
            "slices_per_second": 1 / each,
        }


def training(data: Path, name: str, precision: str, *, compiled: bool, quick: bool) -> Iterator[Result]:
    """Patches per second of the bundle's trainer with pixel losses, and the host's time between steps."""
    batch, steps = (2, 2) if quick else (64, 30)
    settings: dict[str, Any] = {"precision": precision, "train#trainer#generator#compiled": compiled}
    found = trained(data, name, batch=batch, steps=steps, **PIXEL_ONLY | settings)
    between = 1000 * found["outside"] * found["seconds_per_step"]
    yield {
        "what": f"training, {name}, {precision}{', compiled' if compiled else ''}, batch {batch}: {found['patches_per_second']:.1f} patches/s, "
        f"host {between:.1f} ms between steps of {1000 * found['seconds_per_step']:.1f} ms, device busy {100 * found['gpu_busy']:.0f} %",
        **found,
    }


def plan(
    device: torch.device, data: Path, top: dict[str, float], *, quick: bool
) -> Iterator[tuple[str, Iterator[Result]]]:
    """What is measured, most important first: a name, and an iterator that measures when it is read."""
    names = NETWORKS[:1] if quick else NETWORKS
    precisions = ("fp32",) if quick else ("fp32", "bf16")
    for precision in precisions:
        for name in names:
            yield f"inference of {name} in {precision}", inference(name, device, precision, top, quick=quick)
    for precision in precisions:
        yield f"training in {precision}", training(data, "cncl_fast", precision, compiled=False, quick=quick)
    if device.type == "cuda":
        yield "torch.compile of inference", compiled_inference("cncl_fast", device, "bf16", quick=quick)
        yield "torch.compile of training", training(data, "cncl_fast", "bf16", compiled=True, quick=quick)
        yield "training of the paper's network", training(data, "paper", "bf16", compiled=False, quick=quick)


def main() -> None:
    """Measure and print, in order of importance."""
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="no measurement begins later than this")
    asked = parser.parse_args()
    ends = time.monotonic() + 60 * asked.minutes
    logging.disable(logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    full, low = (
        ceiling(device, quick=asked.quick or device.type == "cpu", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    top = {
        "fp32": full["flops_per_second"],
        "bf16": low["flops_per_second"],
        "copy": copy_ceiling(device, quick=asked.quick or device.type == "cpu"),
    }
    results: list[Result] = [
        full,
        low | {"what": f"bf16 {low['what']}"},
        {"what": f"copy: {top['copy'] / 1e9:.0f} GB/s"},
    ]
    with tempfile.TemporaryDirectory() as folder:
        small = {"volumes": 2, "side": 96, "depth": 2} if asked.quick else {"volumes": 2, "side": 512, "depth": 10}
        for name, measured in plan(device, dataset(Path(folder) / "data", **small), top, quick=asked.quick):
            if time.monotonic() > ends:
                results.append({"what": f"{name}: left out, {asked.minutes:g} minutes are over"})
            else:
                results += measured
    report(results, asked)


if __name__ == "__main__":
    main()
