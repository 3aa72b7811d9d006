"""How much of its own noise a scan keeps after denoising, and at which frequencies, with all anatomy cancelled out.

    .venv/bin/python benchmarks/noise_left.py SCANS [--weights RUN/best.pt] [--strength 1.0]

Even in a scan's calmest soft tissue some anatomy counts as noise, and because a denoiser keeps anatomy, the share of "noise"
that remains there is too high. Here each slice is denoised twice, with two insertions of half its own noise (a dose of 0.8, its
own spectrum). The difference of the inputs is pure noise, and the difference of the results is what the denoiser lets through at
that scan's noise level, texture and anatomy. Standard deviations are over all soft tissue; mean frequencies are of the spectra of
the differences in the calmest patches. Prints a table of means over slices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gain_by_noise import Sample, scan_samples, table

from ct_cncl.pipeline.inference.api import chosen_device
from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.metrics.noise_power import noise_figures, noise_power_of_differences
from ct_cncl.pipeline.weights.load import Weights, open_weights

ADDED = 0.5
"""Inserted noise in units of the scan's own: a dose of 1 / (1 + ADDED^2) = 0.8."""


class Passed(NamedTuple):
    """One slice with two insertions of noise, before and after denoising, (x, y) each, HU."""

    sample: Sample
    before: tuple[np.ndarray, np.ndarray]
    after: tuple[np.ndarray, np.ndarray]

    def share(self) -> float:
        """Standard deviation of the noise after over that before, in soft tissue."""
        inside = self.sample.tissues["soft tissue"]
        left, there = (float((one - other)[inside].std()) for one, other in (self.after, self.before))
        return left / there


def passed(sample: Sample, weights: Weights, settings: Settings) -> Passed:
    """Denoise both insertions of a slice."""
    noisy = [(sample.hu + ADDED * unit).astype(np.float32) for unit in sample.unit]
    results = [denoise_volume(image[..., None], weights, settings)[..., 0] for image in noisy]
    return Passed(sample, (noisy[0], noisy[1]), (results[0], results[1]))


def mean_frequency(slices: Sequence[Passed], *, after: bool) -> float:
    """Mean frequency of the noise before or after denoising, 1/mm."""
    first, second = zip(*(one.after if after else one.before for one in slices), strict=True)
    pixel = slices[0].sample.pixel_mm
    power = noise_power_of_differences(first, second, [one.sample.corners for one in slices], pixel_mm=pixel)
    return noise_figures(power, pixel_mm=pixel).mean_per_mm


def rows(samples: Iterable[Sample], weights: Weights, settings: Settings) -> list[dict[str, str | float]]:
    """A row per scan, and their mean."""
    found: dict[str, list[Passed]] = {}
    for sample in samples:
        found.setdefault(sample.source, []).append(passed(sample, weights, settings))
    scans: list[dict[str, str | float]] = [
        {
            "scan": source,
            "slices": len(slices),
            "own noise HU": float(np.mean([one.sample.own_hu for one in slices])),
            "noise left": float(np.mean([one.share() for one in slices])),
            "mean frequency before 1/mm": mean_frequency(slices, after=False),
            "mean frequency after 1/mm": mean_frequency(slices, after=True),
        }
        for source, slices in found.items()
    ]
    numbers = [name for name, value in scans[0].items() if isinstance(value, float)]
    mean = {name: float(np.mean([row[name] for row in scans])) for name in numbers}
    return [*scans, {"scan": "mean of scans", "slices": sum(map(len, found.values())), **mean}]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="scans that training did not see")
    parser.add_argument("--weights", type=Path, help="RUN/best.pt, .ts or .onnx; default: the bundle's own")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--slices", type=int, default=6, help="slices of each scan, at most")
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    weights = open_weights(options.weights, chosen_device("auto"))
    samples = list(scan_samples(options.scans, most=options.slices, seed=options.seed))
    if not samples:
        parser.error(f"Expected slices with calm soft tissue in {options.scans}, but found none. Give other scans.")
    print(table(rows(samples, weights, Settings(strength=options.strength))))


if __name__ == "__main__":
    main()
