"""Contrast kept, noise left, false structure and shifted levels, for one or more sets of weights at given noise levels.

    .venv/bin/python benchmarks/contrast_kept.py ../shared/ct/lcd --weights bundles/ct_cncl/models/model.pt [--scans ../shared/ct/val] [--levels 10,23,40]

LCD is a simulated uniform body phantom with ten noise realizations (`dose_055/signal_absent`, SOURCES.md). Its noise is scaled to each
level, and its pixels are taken to be 0.45, 0.7 and 1.4 mm in turn, because a network sees pixels but the inserts are sized in
millimetres. With --scans, the same is done in the soft tissue of scans that training did not see: noise like their own takes them to
each level, and scans whose own noise is too high are left out. Figures are means over scans, and for each scan means over its inserts.
Noise left is measured between realizations, or in the difference of two insertions, over all soft tissue. Prints the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gain_by_noise import Sample, scan_samples, table
from gain_by_noise import pair_at_level as pair_of
from scipy.ndimage import binary_erosion

from ct_cncl.pipeline.inference.api import chosen_device
from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.metrics.false_structure import blobs_per_cm2
from ct_cncl.pipeline.metrics.inserts import INSERTS, contrasts_kept, insert_image, insert_places, with_inserts
from ct_cncl.pipeline.metrics.levels import disc_shifts
from ct_cncl.pipeline.weights.load import open_weights

PIXELS_MM = (0.45, 0.7, 1.4)
LCD_MM = 0.7
"""The files state no pixel size; the sizes of the inserts in the ground truth imply 0.67 to 0.77 mm."""
EDGE = 12
"""Pixels along the body's edge that are left out, because template and network see air there."""
ROUNDS = 4
"""Sets of insert positions in each phantom realization."""
Denoiser = Callable[[np.ndarray], np.ndarray]


class Kept(NamedTuple):
    """Figures of one volume: noise left, contrast kept by insert, shifts of discs, and blobs per cm2 before and after."""

    noise: float
    contrasts: list[np.ndarray]
    shifts: np.ndarray
    blobs: tuple[float, float] | None


def by_insert(denoise: Denoiser, noisy: np.ndarray, plain: np.ndarray, pixel: float, rounds: int) -> list[np.ndarray]:
    """Contrast kept at every position, by insert, in soft tissue of ``noisy`` (x, y, slices), HU; ``plain`` is its result."""
    found: list[list[float]] = [[] for _ in INSERTS]
    for turn in range(rounds):
        places = insert_places(noisy, (pixel, pixel), seed=turn)
        inserted = denoise(with_inserts(noisy, places, INSERTS, (pixel, pixel)))
        for place, share in zip(places, contrasts_kept(plain, inserted, places, INSERTS, (pixel, pixel)), strict=True):
            found[place.kind].append(float(share))
    return [np.array(one) for one in found]


def phantom(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """LCD's realizations (x, y, 10) and its truth without inserts (x, y), HU."""

    def raw(path: Path, kind: str) -> np.ndarray:
        return np.fromfile(path, kind).reshape(256, 256) - 1000.0

    paths = sorted((folder / "dose_055" / "signal_absent").glob("*.raw"))
    return np.stack([raw(path, "<i2") for path in paths], axis=-1), np.minimum(
        raw(folder / "ground_truth.raw", "<u2"), 0.0
    )


def phantom_kept(denoise: Denoiser, folder: Path, level_hu: float, pixel: float) -> Kept:
    """Measure the phantom at a noise level (HU) and an assumed pixel size (mm)."""
    volume, truth = phantom(folder)
    body = binary_erosion(truth == 0, iterations=EDGE)
    noise = volume - truth[..., None]
    noise *= level_hu / noise[body].std()
    noisy = (truth[..., None] + noise).astype(np.float32)
    plain = denoise(noisy)
    residual = plain - truth[..., None]
    template = insert_image(INSERTS[1], (pixel, pixel))
    template = template[: template.shape[0] // 2 * 2 + 1, : template.shape[1] // 2 * 2 + 1]
    blobs = tuple(blobs_per_cm2(one, noise, template, body, (pixel, pixel)).relative for one in (noise, residual))
    return Kept(
        float(
            (residual - residual.mean(axis=-1, keepdims=True))[body].std()
            / (noise - noise.mean(axis=-1, keepdims=True))[body].std()
        ),
        by_insert(denoise, noisy, plain, pixel, ROUNDS),
        disc_shifts(noisy, plain, (pixel, pixel), region=body),
        (blobs[0], blobs[1]),
    )


def scan_kept(denoise: Denoiser, sample: Sample, level_hu: float) -> Kept | None:
    """Measure one slice of a scan; None if its own noise is above half the level."""
    pair = pair_of(sample, level_hu)
    if pair is None:
        return None
    other = pair_of(sample._replace(unit=sample.unit[::-1].copy()), level_hu)
    assert other is not None
    noisy, second = (one[0][..., None].astype(np.float32) for one in (pair, other))
    plain, again = denoise(noisy), denoise(second)
    inside = sample.tissues["soft tissue"]
    noise = float((plain - again)[inside].std() / (noisy - second)[inside].std())
    pixel = float(np.mean(sample.pixel_mm))
    return Kept(noise, by_insert(denoise, noisy, plain, pixel, 1), disc_shifts(noisy, plain, sample.pixel_mm), None)


def row(name: str, data: str, level_hu: float, found: list[Kept]) -> dict[str, str | float]:
    """One line of the table."""
    shifts = np.abs(np.concatenate([one.shifts for one in found]))
    contrasts: dict[str, str | float] = {}
    for number, insert in enumerate(INSERTS):
        means = [one.contrasts[number].mean() for one in found if len(one.contrasts[number])]
        contrasts[insert.name] = float(100 * np.mean(means)) if means else ""
    first = found[0].blobs
    return {
        "weights": name,
        "data": data,
        "noise HU": level_hu,
        "noise left": float(np.mean([one.noise for one in found])),
        **contrasts,
        "discs": str(len(shifts)),
        "95 % of discs moved by less than, HU": float(np.quantile(shifts, 0.95)) if len(shifts) else "",
        "most HU": float(shifts.max()) if len(shifts) else "",
        "blobs per cm2 before": first[0] if first else "",
        "after": first[1] if first else "",
    }


def rows(
    weights: list[Path], levels: list[float], folder: Path, samples: list[Sample]
) -> Iterator[dict[str, str | float]]:
    """All rows: for each set of weights and level, the phantom at each pixel size, then the scans."""
    for path in weights:
        denoise = partial(denoise_volume, weights=open_weights(path, chosen_device("auto")), settings=Settings())
        name = f"{path.parent.name}/{path.name}"
        for level in levels:
            for pixel in PIXELS_MM if level == levels[len(levels) // 2] else (LCD_MM,):
                yield row(name, f"phantom, {pixel:g} mm", level, [phantom_kept(denoise, folder, level, pixel)])
            found = [one for one in (scan_kept(denoise, sample, level) for sample in samples) if one is not None]
            if found:
                yield row(name, f"{len(found)} slices", level, found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", type=Path, help="folder of the LCD phantom")
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--scans", type=Path, help="scans that training did not see")
    parser.add_argument("--levels", default="10,23,40", help="noise in soft tissue, HU")
    parser.add_argument("--slices", type=int, default=1, help="slices of each scan, at most")
    options = parser.parse_args()
    samples = list(scan_samples(options.scans, most=options.slices, seed=99)) if options.scans else []
    levels = [float(level) for level in options.levels.split(",")]
    print(table(list(rows(options.weights, levels, options.phantom, samples))))


if __name__ == "__main__":
    main()
