"""How much of a result's HU bias by tissue comes from the way the tissues are found.

    .venv/bin/python benchmarks/hu_by_mask.py SCANS [--weights RUN/best.pt]

Tissues are found in the noisy reference. Some of the pixels chosen because the reference is high there are high because of noise,
so the best estimate lies below the reference: a bias that no denoiser can avoid. If the input decides which tissue a pixel
belongs to, the best estimate has no such bias. Here each slice is denoised at a quarter of its dose, twice, and judged both ways;
the reference is always the scan itself. Prints a table of means over slices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from gain_by_noise import Sample, scan_samples, table

from ct_cncl.pipeline.inference.api import chosen_device
from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.metrics import tissue_masks
from ct_cncl.pipeline.metrics.tissue import LEAST_PIXELS, TISSUE_HU
from ct_cncl.pipeline.weights.load import Weights, open_weights

ADDED = np.sqrt(3.0)
"""Inserted noise in units of the scan's own, at a quarter of its dose."""


def bias(image: np.ndarray, reference: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Mean of image - reference in each tissue found in ``said``; all (x, y), HU. NaN for tissues with too few pixels.

    >>> reference = np.full((32, 32), 40.0)
    >>> bias(reference + 2, reference, reference)["soft tissue"]
    2.0
    """
    masks = tissue_masks(said)
    return {
        name: float((image - reference)[masks[name]].mean()) if masks[name].sum() >= LEAST_PIXELS else np.nan
        for name in TISSUE_HU
    }


def rows(samples: Iterable[Sample], weights: Weights) -> list[dict[str, str | float]]:
    """Three rows per scan: the result's bias in tissues of the reference and of the input, the input's in those of the reference."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for sample in samples:
        of_scan = found.setdefault(
            sample.source, {"result, by reference": [], "result, by input": [], "input, by reference": []}
        )
        for unit in sample.unit:
            image = (sample.hu + ADDED * unit).astype(np.float32)
            result = denoise_volume(image[..., None], weights, Settings())[..., 0]
            of_scan["result, by reference"].append(bias(result, sample.hu, sample.hu))
            of_scan["result, by input"].append(bias(result, sample.hu, image))
            of_scan["input, by reference"].append(bias(image, sample.hu, sample.hu))
    return [
        {"scan": source, "bias HU": judged, **{name: _mean([one[name] for one in each]) for name in TISSUE_HU}}
        for source, of_scan in found.items()
        for judged, each in of_scan.items()
    ]


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="scans that training did not see")
    parser.add_argument("--weights", type=Path, help="RUN/best.pt, .ts or .onnx; default: the bundle's own")
    parser.add_argument("--slices", type=int, default=6, help="slices of each scan, at most")
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    samples = list(scan_samples(options.scans, most=options.slices, seed=options.seed))
    if not samples:
        parser.error(f"Expected slices with calm soft tissue in {options.scans}, but found none. Give other scans.")
    print(table(rows(samples, open_weights(options.weights, chosen_device("auto")))))


if __name__ == "__main__":
    main()
