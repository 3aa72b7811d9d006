"""Photon-count simulation compared with the closed formula on shoulders: pictures and radial noise spectra.

    .venv/bin/python benchmarks/starvation.py [SCAN] [--slice Z] [--incident-photons 4e5] [--threshold 600] --out starvation.png

Without SCAN, a phantom of shoulders is used. Prints the noise power below 0.025 cycles/pixel relative to the formula's, with and
without photon-starvation correction. The picture shows the mean over the noise realizations (which leaves the bands; window
0/40 HU), one realization (window 0/200 HU) and the radial spectra, for the formula and for photon-count simulation without and with
photon-starvation correction. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import matplotlib as mpl
import numpy as np

from ct_cncl.transforms.physics import (
    DoseSettings,
    Ellipse,
    hu_to_attenuation,
    noise_image,
    phantom_hu,
    project,
    slice_generator,
)
from ct_cncl.transforms.series import find_scans, read_scan, to_slices, voxel_spacing

mpl.use("Agg")
from matplotlib import pyplot as plt

SHOULDERS = [
    Ellipse(0, 0, 200, 95, 1000.0),
    Ellipse(-150, 0, 14, 14, 500.0),
    Ellipse(150, 0, 14, 14, 500.0),
    Ellipse(-60, 5, 45, 50, -800.0),
    Ellipse(60, 5, 45, 50, -800.0),
    Ellipse(0, 45, 20, 18, 350.0),
]
LOW = 0.025
"""Frequency below which the bands lie, cycles/pixel."""


def load(path: Path | None, z: int | None) -> tuple[np.ndarray, tuple[float, float]]:
    """A slice (x, y), HU, and its pixel size in mm."""
    if path is None:
        return phantom_hu(SHOULDERS, (320, 320), (1.4, 1.4), samples=4), (1.4, 1.4)
    scan = read_scan(find_scans(path)[0])
    volume, order = to_slices(scan.hu, scan.affine)
    if z is None:
        z = int(np.argmax((volume > -200).sum(axis=(0, 1))))
    spacing = voxel_spacing(order.affine)
    return np.ascontiguousarray(volume[..., z], dtype=np.float32), (float(spacing[0]), float(spacing[1]))


def power_spectrum(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency (cycles/pixel) and power of every DFT coefficient, averaged over noise realizations (n, x, y)."""
    nx, ny = noise.shape[1:]
    window = np.hanning(nx)[:, None] * np.hanning(ny)
    power = (np.abs(np.fft.fft2(noise * window)) ** 2).mean(axis=0)
    return np.hypot(np.fft.fftfreq(nx)[:, None], np.fft.fftfreq(ny)), power


def main() -> None:
    """Print the ratios and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path)
    parser.add_argument("--slice", type=int)
    parser.add_argument("--dose", type=float, default=0.25)
    parser.add_argument("--incident-photons", type=float, default=1e6)
    parser.add_argument("--threshold", type=float, default=600.0)
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--realizations", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    hu, pixel = load(options.scan, options.slice)
    formula = DoseSettings(
        dose_fraction=options.dose, incident_photons=options.incident_photons, electronic_variance=25.0
    )
    direct = dataclasses.replace(
        formula, route="photon_counts", starvation_counts=0.0, starvation_channels=options.channels
    )
    routes = {
        "formula": formula,
        "photon-count simulation": direct,
        f"photon-count simulation, below {options.threshold:g} counts smoothed": dataclasses.replace(
            direct, starvation_counts=options.threshold
        ),
    }
    p = project(hu_to_attenuation(hu), pixel, formula.rays((hu.shape[0], hu.shape[1]), pixel))
    fewest = options.dose * options.incident_photons * np.exp(-p.max())
    print(
        f"largest line integral {p.max():.2f}: {fewest:.0f} photons at dose {options.dose:g}, N0 {options.incident_photons:g}"
    )
    figure, axes = plt.subplots(2, 4, figsize=(15, 7.4), constrained_layout=True)
    reference = None
    for column, (name, settings) in enumerate(routes.items()):
        noise = np.array([noise_image(hu, pixel, settings, slice_generator(1, n)) for n in range(options.realizations)])
        frequency, power = power_spectrum(noise)
        low, total = power[frequency < LOW].sum(), power.sum()
        reference = reference or (low, total)
        print(
            f"{name}: power below {LOW} cycles/pixel {low / reference[0]:.2f} x the formula's ({100 * low / total:.2f} % of "
            f"all), all power {total / reference[1]:.2f} x"
        )
        axes[0, column].imshow(noise[0].T, cmap="gray", vmin=-100, vmax=100)
        axes[0, column].set_title(f"{name}\none realization, 0/200 HU", fontsize=9)
        axes[1, column].imshow(noise.mean(axis=0).T, cmap="gray", vmin=-20, vmax=20)
        axes[1, column].set_title(f"mean of {options.realizations}, 0/40 HU", fontsize=9)
        bins = np.arange(0, 0.5, 0.00625)
        number = np.digitize(frequency.ravel(), bins) - 1
        radial = np.bincount(number, power.ravel(), bins.size)[: bins.size] / np.maximum(
            np.bincount(number, minlength=bins.size)[: bins.size], 1
        )
        axes[0, 3].loglog(bins + 0.003125, radial, label=name)
    axes[0, 3].axvline(LOW, color="grey", linewidth=0.7)
    axes[0, 3].set_xlabel("cycles / pixel")
    axes[0, 3].set_ylabel("noise power")
    axes[0, 3].legend(fontsize=7)
    axes[1, 3].imshow(hu.T, cmap="gray", vmin=-150, vmax=250)
    axes[1, 3].set_title("the slice, 50/400 HU", fontsize=9)
    for axis in [*axes[0, :3], *axes[1]]:
        axis.axis("off")
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
