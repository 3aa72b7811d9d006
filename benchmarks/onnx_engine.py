"""torch, TorchScript and ONNX Runtime on the CPU: slices per second, and how far their results differ.

    python benchmarks/onnx_engine.py [--weights RUN/best.pt] [--scan SCAN.nii.gz] [--threads 2] [--size 512] [--slices 20]

Without --weights, the shipped weights are used. A project without them gets an untrained cncl_fast with noise on its weights, since
speed does not depend on them. With --scan, slices of a NIfTI file replace noise around 40 HU. Differences are over all slices.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.sharing.export import write_onnx, write_torchscript
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.pipeline.weights.onnx import open_onnx
from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
from ct_cncl.pipeline.workflow.network import build_network
from ct_cncl.pipeline.workflow.overlays import variant
from ct_cncl.transforms.common.hu import HU_RANGE, to_network

ROUNDS = 5


def untrained(folder: Path) -> Weights:
    """An untrained cncl_fast with noise on its weights, so that its heads are not 0."""
    config = variant("cncl_fast").config()
    definition = {key: config[key] for key in NETWORK_KEYS if key in config}
    network = build_network(definition)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(definition))
    torch.save({"network_def": network.state_dict()}, folder / "best.pt")
    return open_weights(folder / "best.pt", torch.device("cpu"))


def seconds(run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    """Seconds for all images one by one, after one warm-up image."""
    run(images[:1])
    started = time.perf_counter()
    for number in range(len(images)):
        run(images[number : number + 1])
    return time.perf_counter() - started


def shipped_or_untrained(folder: Path) -> Weights:
    """The bundle's weights, or :func:`untrained` ones if it has none."""
    try:
        return open_weights(None, torch.device("cpu"))
    except CheckpointError:
        return untrained(folder)


def slices_of(path: Path, count: int) -> torch.Tensor:
    """Evenly spaced slices of a NIfTI volume, (n, 1, x, y), HU."""
    volume = np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    chosen = np.linspace(0, volume.shape[2] - 1, min(count, volume.shape[2])).round().astype(int)
    return torch.from_numpy(np.ascontiguousarray(volume[..., chosen].transpose(2, 0, 1))[:, None])


def main() -> None:
    """Print a table; the engines take turns, so that a busy machine slows all of them alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = Path(scratch)
        weights = (
            open_weights(asked.weights, torch.device("cpu")) if asked.weights else shipped_or_untrained(folder / "run")
        )
        write_torchscript(weights.network, folder / "model.ts", metadata={})
        write_onnx(weights.network, folder / "model.onnx", slices=weights.slices, metadata={})
        engines: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "torch": weights.network,
            "TorchScript": torch.jit.load(str(folder / "model.ts")),
            "ONNX Runtime": open_onnx(folder / "model.onnx", threads=asked.threads)[0],
        }
        generator = torch.Generator().manual_seed(1)
        hu = 40 + 25 * torch.randn(asked.slices, weights.slices, asked.size, asked.size, generator=generator)
        images = to_network(slices_of(asked.scan, asked.slices) if asked.scan else hu)
        expected = [weights.network(image[None]) for image in images]
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, run in engines.items():
                times[name].append(seconds(run, images))
        size = " x ".join(map(str, images.shape[-2:]))
        print(f"{len(images)} slices of {size}, {asked.threads} threads, median of {ROUNDS} rounds")
        print(f"{'engine':14}{'slices/s':>10}{'of torch':>10}{'largest HU difference':>24}")
        for name, run in engines.items():
            rate = len(images) / statistics.median(times[name])
            ratio = statistics.median(times["torch"]) / statistics.median(times[name])
            far = max(float((run(image[None]) - own).abs().max()) for image, own in zip(images, expected)) * HU_RANGE
            print(f"{name:14}{rate:10.2f}{ratio:10.2f}{far:24.5f}")


if __name__ == "__main__":
    main()
