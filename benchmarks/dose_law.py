"""The dose law on real scans: inserted noise compared with the scan's own, in level and mean frequency.

    .venv/bin/python benchmarks/dose_law.py SRC... [--dose 0.25] [--whole] [--csv FILE]

For every scan under SRC: calibrate as `ct-cncl simulate` does, insert, and compare what was inserted with the scan's own noise
in the soft-tissue patches. There are two comparisons. Each gives the ratio of levels divided by sqrt(1 / dose - 1), and the
ratio of mean frequencies (`_f`); both should be 1:

- model: inserted noise, measured in all patches, over the estimate of the scan's own noise, which is what calibration aims
  at.
- upper: inserted noise over the scan itself, by the median over patches of the power at high frequencies, where anatomy is
  weakest. This is independent of the estimator.

The middle slice of each scan is used, or with `--whole` up to five slices of each volume. Scans with fewer than 20 patches
are summarised separately.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np

from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.noise_estimate import NoNoiseError, measure_noise
from ct_cncl.transforms.physics.patch_spectra import cut, periodograms, rings, tissue_corners
from ct_cncl.transforms.physics.simulation import calibrate
from ct_cncl.transforms.series import find_scans, read_scan, to_slices, voxel_spacing

FIELDS = (
    "scan",
    "slices",
    "patches",
    "noise_hu",
    "error",
    "anatomy",
    "frequency",
    "model",
    "model_f",
    "upper",
    "upper_f",
    "cpu",
)


def sides(volume: np.ndarray, size: int) -> list[np.ndarray]:
    """Corners of the patches in each slice, half a side apart."""
    return [tissue_corners(volume[..., z], size, spacing=size // 2) for z in range(volume.shape[2])]


def powers(volume: np.ndarray, corners: list[np.ndarray], size: int, pixel: tuple[float, float]) -> np.ndarray:
    """Periodograms of all patches, (n, rings)."""
    patches = np.concatenate([cut(volume[..., z], at, size) for z, at in enumerate(corners)])
    return periodograms(patches, pixel)


def compared(full: np.ndarray, pixel: tuple[float, float], dose: float, acquisition: object) -> dict[str, float]:
    """The figures of one scan."""
    start = time.process_time()
    settings = DoseSettings(dose_fraction=dose)
    found = calibrate(full, pixel, settings, 1, acquisition=acquisition, usual_electronics=True)  # type: ignore[arg-type]
    applied = found.apply(settings)
    low = insert_noise(full, pixel, applied, seed=2)
    seconds = time.process_time() - start
    own = measure_noise(full, pixel)
    size = own.patch_size
    corners = sides(full, size)
    ring = rings(size, pixel)
    white = pixel[0] * pixel[1] / 12
    added = powers(low.astype(np.float32) - full, corners, size, pixel)
    scan = np.maximum(powers(full, corners, size, pixel) - white, 0)
    factor = 1 / dose - 1
    grid = np.interp(ring.frequency, own.frequency_per_mm, own.power)
    level = math.sqrt((ring.count * added.mean(axis=0)).sum() / (size**2 * pixel[0] * pixel[1]))
    mean = (ring.count * ring.frequency * added.mean(axis=0)).sum() / (ring.count * added.mean(axis=0)).sum()
    # Upper: the rings that hold the upper half of the noise power, without those where noise is close to rounding.
    share = np.cumsum(ring.count * grid) / np.sum(ring.count * grid)
    upper = (share > 0.5) & (share < 0.97)
    band = [np.median((values[:, upper] * ring.count[upper]).sum(axis=1)) for values in (added, scan)]
    middle = [
        np.median(
            (values[:, upper] * (ring.count * ring.frequency)[upper]).sum(axis=1)
            / (values[:, upper] * ring.count[upper]).sum(axis=1)
        )
        for values in (added, scan)
    ]
    return {
        "slices": full.shape[2],
        "patches": sum(len(at) for at in corners),
        "noise_hu": own.level_hu,
        "error": own.level_error,
        "anatomy": own.anatomy_share,
        "frequency": own.mean_frequency_per_mm,
        "model": level / own.level_hu / math.sqrt(factor),
        "model_f": mean / own.mean_frequency_per_mm,
        "upper": math.sqrt(band[0] / band[1] / factor),
        "upper_f": middle[0] / middle[1],
        "cpu": seconds / full.shape[2],
    }


def summary(rows: list[dict[str, float]], title: str) -> None:
    """Means, and the share within 7 %."""
    if not rows:
        return
    print(f"{title}: {len(rows)} scans")
    for name in ("model", "model_f", "upper", "upper_f"):
        values = np.array([row[name] for row in rows])
        inside = np.mean((values >= 0.93) & (values <= 1.07))
        print(
            f"  {name:8s} mean {values.mean():.3f}  median {np.median(values):.3f}  within 0.93 to 1.07: {100 * inside:.0f} %"
        )


def main() -> None:
    """One line a scan, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--dose", type=float, default=0.25)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows = []
    print("  ".join(FIELDS))
    for source in (found for path in options.sources for found in find_scans(path)):
        scan = read_scan(source, allow_irregular=True)
        volume, order = to_slices(scan.hu, scan.affine)
        if options.whole and volume.shape[2] == 1:
            continue
        middle = [volume.shape[2] // 2]
        pick = np.unique(np.linspace(0, volume.shape[2] - 1, 5).round().astype(int)) if options.whole else middle
        full = np.ascontiguousarray(volume[..., pick])
        spacing = voxel_spacing(order.affine)
        try:
            row = compared(full, (float(spacing[0]), float(spacing[1])), options.dose, scan.acquisition)
        except NoNoiseError as error:
            print(f"{source.name:42s} {error}")
            continue
        rows.append(row)
        print(f"{source.name:42s} " + "  ".join(f"{row[name]:.3f}" for name in FIELDS[1:]), flush=True)
        if options.csv:
            with options.csv.open("a", newline="") as stream:
                csv.writer(stream).writerow([source.name, *(row[name] for name in FIELDS[1:])])
    summary([row for row in rows if row["patches"] >= 20], "20 patches or more")
    summary([row for row in rows if row["patches"] < 20], "fewer patches")


if __name__ == "__main__":
    main()
