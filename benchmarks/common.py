"""Shared by the benchmarks: options, timing, the machine's ceiling, data, and how results are printed and written."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small measurements, only to see whether it runs")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def seconds(work: Callable[[], Any], *, repeats: int = 3) -> float:
    """Seconds of the fastest of ``repeats`` calls, after one warm-up call."""
    best = float("inf")
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if repeat:
            best = min(best, time.perf_counter() - started)
    return best


def ceiling(device: torch.device, *, quick: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Floating-point operations per second that this process reaches at most, in a large matrix product or convolution."""
    side = (512 if quick else 1536) if device.type == "cpu" else 8192
    matrix = torch.rand(side, side, device=device, dtype=dtype)
    product = 2 * side**3 / seconds(lambda: matrix @ matrix)
    image = torch.rand(1, 64, side // 8, side // 8, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        convolution = 2 * 9 * 64 * 64 * (side // 8) ** 2 / seconds(lambda: layer(image))
    return {
        "what": f"ceiling in this process: matrix product {product / 1e9:.0f}, 3x3 convolution of 64 channels {convolution / 1e9:.0f} GFLOP/s",
        "flops_per_second": max(product, convolution),
    }


def machine() -> dict[str, Any]:
    """The machine on which the benchmark runs."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    what = f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}; torch {torch.__version__}; load before {load:.1f}"
    return {"what": what, "load": load}


def dataset(folder: Path, *, volumes: int = 4, side: int = 512, depth: int = 40) -> Path:
    """A prepared data set of noisy cylinders in ``folder``; made only if it is missing."""
    from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
    from ct_cncl.transforms.dataset.writer import write_dataset

    radius = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])[..., None]

    def pair(seed: int) -> Pair:
        rng = np.random.default_rng(seed)
        label = np.where(radius < 0.8, 40, -1000) + rng.normal(0, 20, (side, side, depth)).astype(np.float32)
        return Pair(
            label + rng.normal(0, 30, label.shape).astype(np.float32),
            label.astype(np.float32),
            np.diag([-0.7, -0.7, 1.0, 1.0]),
            {"reference": "synthetic"},
        )

    def cases(first: int, count: int) -> list[Case]:
        return [
            Case(f"patient{k}", f"scan{k}", 0.25, lambda k=k: pair(k))  # type: ignore[misc]
            for k in range(first, first + count)
        ]

    if not (folder / "datalist.json").is_file():
        write_dataset(folder, {"training": cases(0, volumes), "validation": cases(volumes, 1), "test": []}, salt="")
    return folder


def definition(name: str) -> dict[str, Any]:
    """Config keys that define the network of a variant: "paper", the name of an overlay, or several as A+B."""
    from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
    from ct_cncl.pipeline.workflow.overlays import variant

    config = variant(name).config()
    return {key: config[key] for key in NETWORK_KEYS if key in config}


def network(name: str) -> torch.nn.Module:
    """The untrained network of a variant: speed does not depend on the weights."""
    from ct_cncl.pipeline.workflow.network import build_network

    return build_network(definition(name))


def curve(title: str, x: str, y: str, series: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """A plot for the results page: points (x, y) of each named series."""
    return {"title": title, "x": x, "y": y, "series": series}


def report(results: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    """Print the results, ratios first, and write them to ``--json``."""
    results.insert(0, machine())
    for result in results:
        if "what" in result:
            ratio = f"{result['ratio']:7.1f}x" if "ratio" in result else f"{'':8}"
            print(f"{ratio}  {result['what']}", flush=True)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
