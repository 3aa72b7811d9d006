"""Does insertion add the right noise to real scans? Noise after over noise before, measured in the same soft tissue.

    .venv/bin/python benchmarks/calibration.py SRC... [--dose 0.25] [--slices 8] [--pictures DIR]

For every scan under SRC (NIfTI or DICOM): calibrate, insert, measure; expected is sqrt(1 / dose). The measure is a low
quantile of the local standard deviations in soft tissue, over windows of fine texture, so that anatomy contributes little.
What it still contributes makes the ratio too small, because anatomy does not grow with the noise. `--pictures` writes full
dose, low dose and their difference for the slice with most body in it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ct_cncl.transforms.anatomy.regions import local_std, padding_mask, soft_tissue_windows, structure_index
from ct_cncl.transforms.common.hu import WINDOWS, Window, apply_window
from ct_cncl.transforms.physics import DoseSettings, calibrate_incident_photons, insert_noise
from ct_cncl.transforms.series import find_scans, read_scan, to_slices, voxel_spacing

DIFFERENCE = Window(0.0, 200.0)


def level(volume: np.ndarray, windows: np.ndarray) -> float:
    """Low quantile of the standard deviations in the half of the windows with the finest texture, HU."""
    found = []
    for z in range(volume.shape[2]):
        mask = windows[..., z]
        if mask.any():
            index = structure_index(volume[..., z])[mask]
            found.append(local_std(volume[..., z])[1][mask][index <= np.median(index)])
    return float(np.quantile(np.concatenate(found), 0.2))


def picture(full: np.ndarray, low: np.ndarray, path: Path) -> None:
    """Full dose, low dose (abdomen window) and difference (0/200 HU) side by side."""
    panels = [apply_window(image.astype(np.float32), WINDOWS["abdomen"]) for image in (full, low)]
    panels.append(apply_window((low - full).astype(np.float32), DIFFERENCE))
    grey = np.concatenate([panel.T for panel in panels], axis=1)
    Image.fromarray((grey * 255).round().astype(np.uint8)).save(path)


def main() -> None:
    """One line a scan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--dose", type=float, default=0.25)
    parser.add_argument("--slices", type=int, default=8, help="most slices of each scan, evenly spread")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    expected = math.sqrt(1 / options.dose)
    ratios = []
    print(f"noise after / before insertion at dose {options.dose:g}; expected {expected:.3f}")
    for source in (found for path in options.sources for found in find_scans(path)):
        scan = read_scan(source)
        volume, order = to_slices(scan.hu, scan.affine)
        pick = np.unique(np.linspace(0, volume.shape[2] - 1, options.slices).round().astype(int))
        full = np.ascontiguousarray(volume[..., pick])
        spacing = voxel_spacing(order.affine)
        pixel = (float(spacing[0]), float(spacing[1]))
        start = time.perf_counter()
        found_calibration = calibrate_incident_photons(full, pixel, DoseSettings(dose_fraction=options.dose), seed=1)
        seconds = time.perf_counter() - start
        low = insert_noise(full, pixel, found_calibration.apply(DoseSettings(dose_fraction=options.dose)), seed=2)
        windows = np.stack([soft_tissue_windows(full[..., z]) for z in range(full.shape[2])], axis=-1) & ~padding_mask(
            full
        )
        note = found_calibration.reason
        if found_calibration.method == "image":
            ratios.append(level(low, windows) / level(full, windows))
            note = f"ratio {ratios[-1]:.3f}  {note}"
        print(
            f"{source.name:45s} noise {found_calibration.noise_hu:5.1f} HU  N0 {found_calibration.incident_photons:9.3g}  cut-off "
            f"{found_calibration.cutoff:4.2f}  mean frequency {found_calibration.scan_frequency_per_mm:.3f} / "
            f"{found_calibration.added_frequency_per_mm:.3f} per mm  {seconds:4.1f} s  {note}",
            flush=True,
        )
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            widest = int(np.argmax((full > -200).sum(axis=(0, 1))))
            picture(full[..., widest], low[..., widest], options.pictures / f"{source.name}.png")
    print(f"{len(ratios)} scans: mean ratio {np.mean(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
