"""Is one strength per target dose enough? Gain over the input at every strength, for scans at a fraction of their dose.

    .venv/bin/python benchmarks/target_dose.py SCANS [--weights RUN/best.pt] [--doses 0.5,0.25,0.1] [--slices 2]

For a scan simulated at the dose fraction a, the target dose is T = 1 / a. The strength that theory gives
(``ct_cncl.pipeline.inference.target_dose``) should come within 0.1 dB of the best. PSNR has a range of 4096 HU and excludes
padding; slices are averaged within patients (names up to the first underscore), then patients are averaged.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from ct_cncl.pipeline.inference.api import chosen_device
from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.target_dose import strength_of_target
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.metrics.image_quality import psnr
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.physics import DoseSettings
from ct_cncl.transforms.physics.simulation import calibrate, low_dose, own_seed, pixel_of
from ct_cncl.transforms.series import ScanSource, find_scans, read_scan, to_slices

STRENGTHS = tuple(round(0.1 * k, 1) for k in range(5, 15))
Gains = dict[tuple[float, float], list[float]]
"""Gain over the input in dB, by dose and strength."""


def gains(truth: np.ndarray, low: np.ndarray, result: np.ndarray, strengths: list[float]) -> list[float]:
    """PSNR of ``low + s (result - low)`` minus that of ``low``, dB, for each strength s; slices (x, y) in HU."""
    images = np.stack([low, *(low + s * (result - low) for s in strengths)]).astype(np.float32)
    stack = torch.from_numpy(images)[:, None]
    wanted = torch.from_numpy(truth.astype(np.float32))[None, None].expand(stack.shape)
    mask = torch.from_numpy(~padding_mask(truth))[None, None].expand(stack.shape)
    before, *after = psnr(stack, wanted, data_range=4096.0, mask=mask).tolist()
    return [value - before for value in after]


def of_scan(source: ScanSource, weights: Weights, plan: dict[float, list[float]], *, most: int, seed: int) -> Gains:
    """Gains of one scan by dose and strength, one for each of at most ``most`` slices."""
    scan = read_scan(source)
    view, order = to_slices(scan.hu, scan.affine)
    volume, pixel = np.ascontiguousarray(view, dtype=np.float32), pixel_of(scan, order)
    own = own_seed(seed, source.name)
    calibration = calibrate(volume, pixel, DoseSettings(), own, usual_electronics=True)
    chosen = np.unique(np.linspace(0, volume.shape[2] - 1, most + 2).round().astype(int)[1:-1])
    truth = np.ascontiguousarray(volume[..., chosen])
    found: Gains = defaultdict(list)
    for dose, strengths in plan.items():
        settings = dataclasses.replace(calibration.apply(DoseSettings()), dose_fraction=dose)
        low = low_dose(truth, pixel, settings, own)
        result = denoise_volume(low, weights, Settings())
        for k in range(truth.shape[2]):
            own_gains = gains(truth[..., k], low[..., k], result[..., k], strengths)
            for strength, gain in zip(strengths, own_gains, strict=True):
                found[dose, strength].append(gain)
    return found


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="normal-dose scans that training did not see")
    parser.add_argument("--weights", type=Path, help="RUN/best.pt, .ts or .onnx; default: the bundle's own")
    parser.add_argument("--doses", default="0.5,0.25,0.1", help="dose fractions of the inputs")
    parser.add_argument("--trained", type=float, default=4.0, help="target dose that the weights were trained for")
    parser.add_argument("--slices", type=int, default=2, help="slices of each scan, at most")
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    weights = open_weights(options.weights, chosen_device("auto"))
    doses = [float(dose) for dose in options.doses.split(",")]
    theory = {dose: strength_of_target(1 / dose, input_dose=1 / options.trained) for dose in doses}
    plan = {dose: [*STRENGTHS, theory[dose]] for dose in doses}
    patients: dict[str, list[Gains]] = defaultdict(list)
    for source in find_scans(options.scans):
        name = "_".join(source.name.split("_")[: 2 if source.name.startswith("nysbu_") else 1])
        patients[name].append(of_scan(source, weights, plan, most=options.slices, seed=options.seed))
    rows = []
    for dose in doses:
        means = {
            strength: float(np.mean([np.mean([g for one in scans for g in one[dose, strength]]) for scans in patients.values()]))
            for strength in plan[dose]
        }  # fmt: skip
        best = max(means, key=lambda strength: means[strength])
        rows.append(
            [f"{dose:g}", *(f"{means[s]:.2f}" for s in STRENGTHS), f"{theory[dose]:.3f}: {means[theory[dose]]:.2f}",
             f"{means[best] - means[theory[dose]]:.2f}"]
        )  # fmt: skip
    head = ["dose", *(f"s = {s:g}" for s in STRENGTHS), "theory", "best is ahead by"]
    print(f"gain, dB (range 4096 HU), mean over {len(patients)} patients; load {os.getloadavg()[0]:.1f}")
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
