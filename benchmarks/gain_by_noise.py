"""What a denoiser gains at each level of input noise when the target is always four times the input's dose.

    .venv/bin/python benchmarks/gain_by_noise.py SCANS --out DIR [--weights RUN/best.pt] [--levels 10,15,20,30,40,50,60]

As in training, doses are nested: the target is the scan with noise added up to half the level, and the input, at a quarter of
the target's dose, has the level itself. A scan whose own noise is above half a level has no such target and is left out at that
level; phantoms, which are noise-free, are used at all of them. A level is the mean over a slice's soft tissue, by construction;
the table gives what was measured in its calmest patches (24 x 24 pixels of soft tissue, chosen in the scan itself), which hold
some anatomy, too. PSNR has a range of 4096 HU and excludes padding; 95 % intervals are over slices. Writes gain_by_noise.csv and
gain_by_noise.svg (the picture needs `pip install 'ct-cncl[report]'`) and prints the table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ct_cncl.pipeline.common.csv_files import write_csv
from ct_cncl.pipeline.inference.api import chosen_device
from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.metrics.bootstrap import bootstrap_mean
from ct_cncl.pipeline.metrics.image_quality import psnr
from ct_cncl.pipeline.metrics.nps_distance import patches_at, uniform_patches
from ct_cncl.pipeline.metrics.tissue import LEAST_PIXELS, tissue_masks
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.transforms.anatomy.regions import padding_mask, soft_tissue_windows
from ct_cncl.transforms.patches.random_dose import DoseDraw, pairs_at_doses
from ct_cncl.transforms.phantom import anatomical_phantom
from ct_cncl.transforms.physics import DoseSettings
from ct_cncl.transforms.physics.noise_realizations import noise_realization
from ct_cncl.transforms.physics.simulation import calibrate, own_seed, pixel_of, scanner_floor
from ct_cncl.transforms.series import find_scans, read_scan, to_slices, voxel_spacing

DOSE = 0.25
PHOTONS = 1e8
"""Incident photons of phantoms: enough for their noise to stay below every level."""
FIRST_PHANTOM = 9000
"""Seed of the first phantom, far from the seeds with which data sets are prepared."""


class Sample(NamedTuple):
    """A slice and the noise that can be added to it."""

    data: str
    """ "scans" or "phantoms"."""
    hu: np.ndarray
    """(x, y), HU."""
    unit: np.ndarray
    """(2, x, y), two noise realizations at its full dose, HU."""
    own_hu: float
    """Standard deviation of that noise in soft tissue, HU."""
    noise_free: bool
    corners: list[tuple[int, int]]
    """Corners of its calmest patches."""
    tissues: dict[str, np.ndarray]
    """Mask of each tissue, bool (x, y)."""
    pixel_mm: tuple[float, float]
    """(dx, dy)."""
    source: str
    """Name of the scan's file, or of the phantom."""


class Found(NamedTuple):
    """Measurements of one slice at one level."""

    before_hu: float
    after_hu: float
    before_db: float
    after_db: float
    bias: dict[str, float]
    """Mean of result - target by tissue, HU."""


def target_dose(own_hu: float, level_hu: float, *, noise_free: bool = False) -> float | None:
    """Dose of the target, so that a quarter of it has the noise level; None if the scan has too much noise.

    Noise is proportional to 1 / sqrt(dose): the target of dose b has ``own / sqrt(b)``, its quarter twice that.

    >>> target_dose(10.0, 40.0), target_dose(10.0, 15.0)
    (0.25, None)
    """
    dose = (own_hu / (level_hu * math.sqrt(DOSE))) ** 2
    if noise_free and dose > 1:
        raise ValueError(
            f"Expected noise below {level_hu / 2:g} HU for a phantom's target, but got {own_hu:g}. Raise PHOTONS."
        )
    return dose if dose <= 1 else None


def pair_at_level(sample: Sample, level_hu: float) -> tuple[np.ndarray, np.ndarray] | None:
    """(input, target) of a slice, HU, with the input at the level in soft tissue; None if the slice has too much noise."""
    dose = target_dose(sample.own_hu, level_hu, noise_free=sample.noise_free)
    if dose is None:
        return None
    draw = DoseDraw(DOSE, dose, (0, 1))
    floor = scanner_floor(sample.hu)
    hu, *noise = (torch.from_numpy(np.asarray(one, dtype=np.float64))[None] for one in (sample.hu, *sample.unit))
    pair = pairs_at_doses(hu, noise, [draw], noise_free=[sample.noise_free], floor_hu=[floor])
    image, target = (one[0].float().numpy() for one in pair)
    return image, target


def sampled(
    source: str,
    hu: np.ndarray,
    pixel: tuple[float, float],
    settings: DoseSettings,
    seeds: list[int],
    *,
    noise_free: bool,
) -> Sample | None:
    """A slice with its noise realizations; None without enough soft tissue to measure a level."""
    measured = ~padding_mask(hu)
    windows, corners = soft_tissue_windows(hu) & measured, uniform_patches(hu)
    if windows.sum() < LEAST_PIXELS or not corners:
        return None
    unit = np.stack([noise_realization(hu[..., None], pixel, settings, seed)[..., 0] for seed in seeds])
    own = float(np.sqrt(np.mean(unit[:, windows] ** 2)))
    data = "phantoms" if noise_free else "scans"
    return Sample(data, hu, unit, own, noise_free, corners, tissue_masks(hu, valid=measured), pixel, source)


def scan_samples(folder: Path, *, most: int, seed: int) -> Iterator[Sample]:
    """At most ``most`` slices of each scan, evenly spaced."""
    for source in find_scans(folder):
        scan = read_scan(source)
        name = source.name if source.relative == "." else f"{source.relative}/{source.name}"
        view, order = to_slices(scan.hu, scan.affine)
        volume, pixel = np.ascontiguousarray(view, dtype=np.float32), pixel_of(scan, order)
        settings = calibrate(volume, pixel, DoseSettings(), own_seed(seed, name)).apply(DoseSettings())
        for z in np.unique(np.linspace(0, volume.shape[2] - 1, most + 2).round().astype(int)[1:-1]):
            seeds = [own_seed(seed, f"{name}/{z}", number) for number in (1, 2)]
            sample = sampled(name, volume[..., z], pixel, settings, seeds, noise_free=False)
            if sample is not None:
                yield sample


def phantom_samples(count: int, *, size: int) -> Iterator[Sample]:
    """One slice from each of ``count`` phantoms, with noise realizations small enough for every level."""
    for seed in range(FIRST_PHANTOM, FIRST_PHANTOM + count):
        phantom = anatomical_phantom(seed, slices=1, size=size)
        spacing = voxel_spacing(phantom.affine)
        pixel = (float(spacing[0]), float(spacing[1]))
        seeds = [own_seed(seed, "gain", number) for number in (1, 2)]
        sample = sampled(
            f"phantom {seed}", phantom.hu[..., 0], pixel, DoseSettings(incident_photons=PHOTONS), seeds, noise_free=True
        )
        if sample is not None:
            yield sample


def measure(sample: Sample, image: np.ndarray, target: np.ndarray, result: np.ndarray) -> Found:
    """Measure noise, PSNR and HU bias of one slice (all (x, y), HU)."""
    measured = ~padding_mask(sample.hu)
    levels = [float(np.sqrt(patches_at(each, sample.corners).var(axis=(1, 2)).mean())) for each in (image, result)]
    stack, mask = (torch.from_numpy(np.stack(two))[:, None] for two in ((image, result), (measured, measured)))
    wanted = torch.from_numpy(target)[None, None].expand(stack.shape)
    before, after = psnr(stack, wanted, data_range=4096.0, mask=mask).tolist()
    error = result.astype(np.float64) - target
    bias = {name: float(error[mask].mean()) for name, mask in sample.tissues.items() if mask.sum() >= LEAST_PIXELS}
    return Found(*levels, before, after, bias)


def summarise(data: str, level_hu: float, found: list[Found]) -> dict[str, str | float]:
    """One row of the table, means over slices."""
    gain = bootstrap_mean(np.array([one.after_db - one.before_db for one in found]), seed=0)
    names = sorted({name for one in found for name in one.bias})
    bias = {name: float(np.mean([one.bias[name] for one in found if name in one.bias])) for name in names}
    worst = max(bias, key=lambda name: abs(bias[name]))
    known = gain.low is not None and gain.high is not None
    return {
        "data": data,
        "level HU": level_hu,
        "slices": len(found),
        "input noise HU": float(np.mean([one.before_hu for one in found])),
        "input PSNR dB": float(np.mean([one.before_db for one in found])),
        "gain dB": gain.mean,
        "95 %": f"{gain.low:.2f} to {gain.high:.2f}" if known else "",
        "noise left": float(np.mean([one.after_hu / one.before_hu for one in found])),
        "HU bias, soft tissue": bias["soft tissue"],
        "largest HU bias": bias[worst],
        "in": worst,
    }


def table(rows: list[dict[str, str | float]]) -> str:
    """Rows as a Markdown table.

    >>> print(table([{"data": "scans", "gain dB": 2.0, "slices": 3}]))
    | data | gain dB | slices |
    |---|---|---|
    | scans | 2.00 | 3 |
    """
    lines = [
        list(rows[0]),
        *([f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows),
    ]
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([first, "|" + "---|" * len(rows[0]), *rest])


def picture(rows: list[dict[str, str | float]], path: Path) -> None:
    """Plot the gain and the share of noise left against input noise."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), constrained_layout=True)
    titles = {"gain dB": "gain over the input, dB (range 4096 HU)", "noise left": "noise left (standard deviation)"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for data in dict.fromkeys(row["data"] for row in rows):
            points = [(row["input noise HU"], row[column]) for row in rows if row["data"] == data]
            axis.plot(*zip(*points, strict=True), marker="o", label=data)
        axis.set(xlabel="input noise in calm soft tissue, HU", title=title)
        axis.title.set_fontsize(9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].axhline(20 * math.log10(2), color="grey", linewidth=0.8, linestyle="--")
    axes[0].legend(fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def run(samples: Iterator[Sample], levels: list[float], weights: Weights) -> list[dict[str, str | float]]:
    """All rows of the table: every level of the scans, then of the phantoms."""
    found: dict[tuple[str, float], list[Found]] = {}
    for sample in samples:
        for level in levels:
            pair = pair_at_level(sample, level)
            if pair is not None:
                result = denoise_volume(pair[0][..., None], weights, Settings())[..., 0]
                found.setdefault((sample.data, level), []).append(measure(sample, *pair, result))
    order = [(data, level) for data in ("scans", "phantoms") for level in levels if (data, level) in found]
    return [summarise(data, level, found[data, level]) for data, level in order]


def main() -> None:
    """Print the table, and write CSV and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="normal-dose scans that training did not see")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="RUN/best.pt, .ts or .onnx; default: the bundle's own")
    parser.add_argument("--levels", default="10,15,20,30,40,50,60", help="input noise, HU")
    parser.add_argument("--slices", type=int, default=10, help="slices of each scan, at most")
    parser.add_argument("--phantoms", type=int, default=6)
    parser.add_argument("--size", type=int, default=512, help="pixels per side of the phantoms")
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    weights = open_weights(options.weights, chosen_device("auto"))

    def samples() -> Iterator[Sample]:
        yield from scan_samples(options.scans, most=options.slices, seed=options.seed)
        yield from phantom_samples(options.phantoms, size=options.size)

    rows = run(samples(), [float(level) for level in options.levels.split(",")], weights)
    if not rows:
        parser.error("Expected a slice with less noise than half a level, but found none. Give higher --levels.")
    write_csv(options.out / "gain_by_noise.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    print(table(rows))
    picture(rows, options.out / "gain_by_noise.svg")


if __name__ == "__main__":
    main()
