"""Patches per second in training, and the time of a step outside the networks: cncl_fast and the paper's CNCL, in one process.

    .venv/bin/python benchmarks/training.py [--quick] [--json FILE] [--compile]
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/training.py --share

--share measures only the time of a cncl_fast step outside forward, backward and optimizer, with one thread and in CPU time, which other
work on the machine does not affect. It uses the bundle's trainer with all its handlers, without validation; both networks see the same
patches.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import ceiling, curve, dataset, network, options, report
from ignite.engine import Events
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ct_cncl.pipeline.networks import BranchOutputs
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, overlay_file

SIDE = 64
PIXEL_ONLY: dict[str, Any] = {"discriminator": None}


class Clock:
    """Times the iterations after the first few, and within them the networks' steps."""

    def __init__(self, trainer: Any, *, skip: int, now: Callable[[], float]) -> None:
        self.now = now
        self.skip, self.begun, self.ended, self.inside, self.input, self.asked = skip, 0.0, 0.0, 0.0, 0.0, 0.0
        self.profile = profile(activities=[ProfilerActivity.CUDA])
        steps = trainer._steps

        def timed(parts: Any) -> Any:
            started = now()
            output = steps(parts)
            if self.counts(trainer):
                self.inside += now() - started
            return output

        trainer._steps = timed
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self.batch_started)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self.batch_completed)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.completed)

    def counts(self, trainer: Any) -> bool:
        return trainer.state.iteration > self.skip

    def batch_started(self, trainer: Any) -> None:
        self.asked = self.now()
        if trainer.state.iteration == self.skip:  # the last iteration that is not counted has just ended
            self.begun = self.asked
            if torch.cuda.is_available():
                self.profile.start()

    def batch_completed(self, trainer: Any) -> None:
        if trainer.state.iteration >= self.skip:
            self.input += self.now() - self.asked

    def completed(self, _trainer: Any) -> None:
        self.ended = self.now()

    def stop(self) -> tuple[float, float]:
        """Seconds of the iterations, and the share of them in which the GPU was busy; NaN without a GPU."""
        if not torch.cuda.is_available():
            return self.ended - self.begun, float("nan")
        torch.cuda.synchronize()
        wall = self.now() - self.begun
        self.profile.stop()
        return wall, sum(event.self_device_time_total for event in self.profile.key_averages()) / 1e6 / wall


def trained(
    data: Path, name: str, *, batch: int, steps: int, now: Callable[[], float] = time.perf_counter, **overrides: Any
) -> dict[str, float]:
    """Train for ``steps`` steps after a short warm-up; return patches per second and shares of the time by the clock ``now``."""
    skip = 2
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "dataset_dir": str(data), "output_dir": f"{folder}/run", "batch_size": batch, "max_epochs": 2,
            "patches#per_epoch": batch * (steps + skip), "patches#size": SIDE,
            "val_interval": 2, "precision": "fp32",
        } | overrides  # fmt: skip
        files = [config_file("train.json"), overlay_file("fast" if name == "cncl_fast" else name)]
        workflow = build_workflow(files, run_id="training", overrides=values)
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train#trainer")
        clock = Clock(trainer, skip=skip, now=now)
        # The last epoch is validated, so this run ends before it.
        trainer.add_event_handler(Events.EPOCH_COMPLETED, trainer.terminate)
        trainer.run()
        wall, busy = clock.stop()
    return {
        "patches_per_second": batch * steps / wall,
        "outside": 1 - clock.inside / wall,
        "input": clock.input / wall,
        "seconds_per_step": wall / steps,
        "gpu_busy": busy,
    }


def share_outside(data: Path, *, quick: bool) -> list[dict[str, Any]]:
    """CPU time of a step outside forward, backward and optimizer, on the CPU."""
    batch, steps = (2, 2) if quick else (8, 60)
    results = []
    for kind, settings in {"pixel losses": PIXEL_ONLY, "with adversary": {}}.items():
        own = trained(data, "cncl_fast", batch=batch, steps=steps, now=time.process_time, device="cpu", **settings)
        what = (
            f"cncl_fast, {kind}, {batch} patches of {SIDE} x {SIDE}, {torch.get_num_threads()} thread, fp32: {100 * own['outside']:.1f} % of "
            f"{1000 * own['seconds_per_step']:.0f} ms of processor time a step are outside of forward, backward and optimizer "
            f"(input {100 * own['input']:.1f} %)"
        )
        results.append({"what": what, "ours": own})
    return results


def step_cost(name: str, *, batch: int, side: int = SIDE) -> tuple[float, float]:
    """Floating-point operations of a forward and backward pass, and MiB that autograd keeps between the two."""
    module = BranchOutputs(network(name)).train()
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum(branch.mean() for branch in module(torch.rand(batch, 1, side, side)))
        loss.backward()  # type: ignore[union-attr]
    return counter.get_total_flops(), sum(kept.values()) / 2**20


def compared(data: Path, top: float, *, quick: bool) -> list[dict[str, Any]]:
    """Compare both networks with pixel losses, and with the discriminator in every or every tenth iteration."""
    batch, steps = (2, 2) if quick else (16, 10)
    results = []
    kinds: dict[str, dict[str, Any]] = {
        "pixel losses": PIXEL_ONLY,
        "D, k = 1": {"adversarial#d_every": 1},
        "D, k = 10": {"adversarial#d_every": 10},
    }
    for kind, settings in kinds.items():
        fast = trained(data, "cncl_fast", batch=batch, steps=4 * steps, **settings)
        paper = trained(data, "paper", batch=batch, steps=max(steps // 5, 1), **settings)
        ratio = fast["patches_per_second"] / paper["patches_per_second"]
        what = (
            f"{kind}, {SIDE} x {SIDE}, batch {batch}: cncl_fast {fast['patches_per_second']:.1f} patches/s, the paper's CNCL "
            f"{paper['patches_per_second']:.2f}; outside the steps {100 * fast['outside']:.1f} % (input {100 * fast['input']:.1f} %)"
        )
        if torch.cuda.is_available():
            what += f"; GPU busy {100 * fast['gpu_busy']:.0f} %"
        result: dict[str, Any] = {"what": what, "ratio": ratio, "ours": fast, "theirs": paper}
        if kind == "pixel losses":
            for name, own in (("cncl_fast", fast), ("paper", paper)):
                share = step_cost(name, batch=batch)[0] / own["seconds_per_step"] / top
                result[f"fraction_of_ceiling_{name}"] = share
                result["what"] += f"; {name} {100 * share:.0f} % of the ceiling"
        results.append(result)
    return results


def growth(data: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Patches per second and memory, by batch, patch size and width."""
    batches = (1, 2) if quick else (1, 4, 16, 32)
    steps = 2 if quick else 8
    rate = [
        (batch, trained(data, "cncl_fast", batch=batch, steps=steps, **PIXEL_ONLY)["patches_per_second"])
        for batch in batches
    ]
    names = ("cncl_fast",) if quick else ("narrow", "width16", "cncl_fast", "width32", "paper")
    kept = {name: [(batch, step_cost(name, batch=batch)[1]) for batch in batches] for name in names}
    sides = (32, 64) if quick else (32, 64, 128, 256)
    large = {name: [(side, step_cost(name, batch=2, side=side)[1]) for side in sides] for name in names}
    return [
        curve("Training by batch (cncl_fast, pixel losses)", "batch", "patches/s", {"cncl_fast": rate}),
        curve("Activations kept for the backward pass, 64 x 64", "batch", "MiB", kept),
        curve("Activations kept for the backward pass, batch 2", "patch size", "MiB", large),
    ]


def settings(data: Path, *, quick: bool, compiled: bool) -> list[dict[str, Any]]:
    """Speed with each setting, relative to train.json as it is."""
    batch, steps = (2, 2) if quick else (16, 20)
    cuda = torch.cuda.is_available()
    changes: dict[str, dict[str, Any]] = {
        "Adam without fused": {"optimizer#fused": False},
        "channels_last": {"train#trainer#generator#channels_last": True},
        "recompute_activations": {"train#trainer#generator#recompute_activations": True},
        "accumulate=2": {"train#trainer#accumulate": 2},
        "precision=bf16": {"precision": "bf16_any"},
    }
    if compiled or cuda:
        changes["compile"] = {"train#trainer#generator#compiled": True}
    if quick:
        changes = {"accumulate=2": changes["accumulate=2"]}
    results = []
    for name in ("cncl_fast",) if quick else ("cncl_fast", "width16"):
        base = trained(data, name, batch=batch, steps=steps, **PIXEL_ONLY)["patches_per_second"]
        for what, change in changes.items():
            rate = trained(data, name, batch=batch, steps=steps, **PIXEL_ONLY | change)["patches_per_second"]
            results.append({"what": f"{name}, {what}: {rate:.1f} patches/s, without {base:.1f}", "ratio": rate / base})
    return results


def main() -> None:
    """Measure, and print ratios first."""
    parser = options(__doc__)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too (takes minutes)")
    parser.add_argument("--share", action="store_true", help="measure only the share of a step outside the networks")
    asked = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1 if asked.share else asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        small = {"volumes": 2, "side": 96, "depth": 2} if asked.quick else {"volumes": 2, "side": 512, "depth": 10}
        data = dataset(Path(folder) / "data", **small)
        if asked.share:
            report(share_outside(data, quick=asked.quick), asked)
            return
        top = ceiling(device, quick=asked.quick)
        results = [top, *compared(data, top["flops_per_second"], quick=asked.quick)]
        results += settings(data, quick=asked.quick, compiled=asked.compile)
        results.append({"curves": growth(data, quick=asked.quick)})
    report(results, asked)


if __name__ == "__main__":
    main()
