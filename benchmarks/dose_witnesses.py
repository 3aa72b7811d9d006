"""The dose law checked against independent data: simulated and measured phantoms, known kernels and known noise.

    .venv/bin/python benchmarks/dose_witnesses.py lcd ../shared/ct/lcd
    .venv/bin/python benchmarks/dose_witnesses.py acr ../shared/ct/acr/acr_nd_ld_nps_3mm_sharp.mat [--picture FILE.svg]
    .venv/bin/python benchmarks/dose_witnesses.py kernels
    .venv/bin/python benchmarks/dose_witnesses.py known ../shared/ct/train

lcd: noise inserted to go from 55 % to 10 % of the dose, compared with the real 10 % images (ten realizations each; noise is the
difference from their mean).
acr: spectra measured on a scanner. The calibration is given the full-dose spectrum; the inserted noise is compared with it, and the
result with the measured quarter-dose spectrum. The file states no pixel size: 0.5 mm is assumed, with frequencies in 1/pixel (64
pixels).
kernels: noise of known kernels, from very smooth to edge-enhancing, on a water cylinder and an anatomical phantom, measured again.
known: noise of known level (1 and 1.73 times the scan's own) and spectrum (a Hann kernel) is added to the middle slice of every scan.
What `ct-cncl noise` measures with it minus what it measures without it, in variance and spectrum, is divided by what was added.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from ct_cncl.pipeline.preparation.spectra_picture import spectra_svg
from ct_cncl.transforms.physics import DoseSettings, insert_noise, phantom_hu, water_cylinder
from ct_cncl.transforms.physics.noise_estimate import measure_noise
from ct_cncl.transforms.physics.noise_spectrum import check_spectrum
from ct_cncl.transforms.physics.patch_spectra import cut, periodograms, rings, tissue_corners
from ct_cncl.transforms.physics.simulation import calibrate

LCD_PIXEL = 0.7
LCD_SEEDS = 8
"""Insertions into each of the ten images, so that the remaining error is that of the real images."""
ACR_PIXEL = 0.5


def radial(noise: np.ndarray, clean: np.ndarray, pixel: tuple[float, float], size: int = 32) -> np.ndarray:
    """Mean periodogram (rings,) of noise (x, y, z) over the soft-tissue patches of a slice."""
    return radial_of_each(noise, clean, pixel, size).mean(axis=0)


def radial_of_each(noise: np.ndarray, clean: np.ndarray, pixel: tuple[float, float], size: int = 32) -> np.ndarray:
    """Mean periodogram of each slice, (z, rings)."""
    corners = tissue_corners(clean, size, spacing=size // 2)
    return np.stack(
        [periodograms(cut(noise[..., z], corners, size), pixel).mean(axis=0) for z in range(noise.shape[2])]
    )


def relative_error(each: np.ndarray) -> np.ndarray:
    """Standard error of the mean over realizations (n, rings), relative to the mean."""
    return each.std(axis=0, ddof=1) / math.sqrt(len(each)) / each.mean(axis=0)


def lcd(folder: Path) -> None:
    """Compare inserted with real noise on the LCD phantom, from 55 % to 10 % of the dose."""
    pixel = (LCD_PIXEL, LCD_PIXEL)
    volumes = {}
    for dose in ("dose_055", "dose_010"):
        files = sorted((folder / dose / "signal_absent").iterdir())
        slices = [np.fromfile(file, "<i2").reshape(256, 256).T - 1000.0 for file in files]
        volumes[dose] = np.stack(slices, axis=-1)
    full, real = volumes["dose_055"], volumes["dose_010"]
    ring = rings(32, pixel)
    clean = full.mean(axis=-1)
    own_noise, real_noise = (
        (volume - volume.mean(axis=-1, keepdims=True)) * math.sqrt(10 / 9) for volume in (full, real)
    )
    found = measure_noise(full, pixel, max_slices=10)
    own = radial(own_noise, clean, pixel)
    true = math.sqrt((ring.count * own).sum() / (32**2 * LCD_PIXEL**2))
    print(
        f"lcd, {LCD_PIXEL} mm a pixel: own noise at 55 %: found {found.level_hu:.2f} HU, true {true:.2f} HU in the patches"
    )
    fraction = 10 / 55
    for title, electronics in (("no electronic noise", False), ("usual electronic noise", True)):
        settings = DoseSettings(dose_fraction=fraction)
        calibration = calibrate(full, pixel, settings, 0, usual_electronics=electronics)
        lows = [insert_noise(full, pixel, calibration.apply(settings), seed) for seed in range(3, 3 + LCD_SEEDS)]
        noise = [(low - low.mean(axis=-1, keepdims=True)) * math.sqrt(10 / 9) for low in lows]
        each, theirs = (
            radial_of_each(np.concatenate(noise, axis=-1), clean, pixel),
            radial_of_each(real_noise, clean, pixel),
        )
        per_pixel = ring.frequency * LCD_PIXEL
        band = (per_pixel >= 0.1) & (per_pixel <= 0.45)
        power = (each.mean(axis=0) / theirs.mean(axis=0))[band]
        error = np.hypot(relative_error(each), relative_error(theirs))[band]
        ratio = math.sqrt((ring.count * each.mean(axis=0)).sum() / (ring.count * theirs.mean(axis=0)).sum())
        print(f"  55 % to 10 %, {title}: level {ratio:.3f} of the real one; by ring, 0.1 to 0.45 / pixel:")
        print("    power:         ", " ".join(f"{value:.2f}" for value in power))
        print("    standard error:", " ".join(f"{value:.2f}" for value in error))
        print("    amplitude:     ", " ".join(f"{math.sqrt(value):.2f}" for value in power))


def acr(file: Path, picture: Path | None) -> None:
    """Compare with the spectra measured on the ACR phantom, given the full-dose one."""
    from scipy.io import loadmat

    measured = loadmat(file)
    frequency = np.arange(45) / 64 / ACR_PIXEL
    full, quarter = (np.ravel(measured[name]).astype(float) for name in ("nd_nps1d", "ld_nps1d"))
    two = {name: np.asarray(measured[name]) for name in ("nd_nps2d", "ld_nps2d")}
    print(f"acr: measured power, quarter over full dose: {two['ld_nps2d'].sum() / two['nd_nps2d'].sum():.2f}")
    spectrum = check_spectrum(frequency, full, file.name)
    pixel = (ACR_PIXEL, ACR_PIXEL)
    clean = phantom_hu(water_cylinder(100.0), (448, 448), pixel)[..., None]
    settings = DoseSettings(dose_fraction=1.0)
    own = calibrate(clean, pixel, settings, 0, spectrum=spectrum)  # noise-free, so the level is the file's, too
    scan = insert_noise(np.repeat(clean, 8, axis=2), pixel, own.apply(settings), 5, noise_free=True)
    at_quarter = DoseSettings(dose_fraction=0.25)
    found = calibrate(scan, pixel, at_quarter, 0, spectrum=spectrum)
    low = insert_noise(scan, pixel, found.apply(at_quarter), 6)
    inner = np.where(np.hypot(*np.mgrid[-224:224, -224:224]) < 100, 0.0, -1000.0)
    before, added, after = (radial(noise, inner, pixel, 32) for noise in (scan - clean, low - scan, low - clean))
    ring = rings(32, pixel)
    total = [float((ring.count * values).sum()) for values in (before, added, after)]
    print(
        f"  inserted power {total[1] / total[0]:.2f} times the scan's own (3), result {total[2] / total[0]:.2f} times (4)"
    )
    grid = np.interp(ring.frequency, frequency, full)
    shape = (added / total[1]) / (before / total[0])
    used = grid > 0.05 * grid.max()
    print("  shape of the inserted over the scan's own by ring:", " ".join(f"{value:.2f}" for value in shape[used]))
    shape = (before / before[used].sum()) / (grid / grid[used].sum())
    print("  scan made from the file over the file:            ", " ".join(f"{value:.2f}" for value in shape[used]))
    if picture:
        scale = full.sum() / np.interp(frequency, ring.frequency, before).sum()
        curves = [
            ("measured at a quarter of the dose", frequency, quarter),
            ("ours at a quarter of the dose", ring.frequency, after * scale),
        ]
        picture.write_text(spectra_svg([(name, list(x), list(y)) for name, x, y in curves]), encoding="utf-8")


def kernels() -> None:
    """Measure the noise of known kernels."""
    from ct_cncl.transforms.phantom import anatomical_phantom

    phantom = anatomical_phantom(7, slices=2)
    side = float(abs(phantom.affine[0, 0]))
    water = phantom_hu(water_cylinder(140.0), (512, 512), (0.7, 0.7))
    objects = [("water", np.repeat(water[..., None], 2, axis=2), (0.7, 0.7)), ("anatomy", phantom.hu, (side, side))]
    frequency = np.arange(97) / 96
    gains = {
        "very smooth (B10f)": np.exp(-((frequency / 0.28) ** 2)),
        "smooth (B20f)": np.exp(-((frequency / 0.36) ** 2)),
        "standard (B30f)": np.exp(-((frequency / 0.45) ** 2)),
        "sharp (B50f)": 1 / (1 + np.exp((frequency - 0.62) / 0.05)),
        "edge-enhancing (B70f)": (1 + 1.2 * np.exp(-(((frequency - 0.55) / 0.2) ** 2)))
        / (1 + np.exp((frequency - 0.8) / 0.04)),
    }
    print("kernels: level and mean frequency found / true")
    for name, gain in gains.items():
        for title, clean, pixel in objects:
            settings = DoseSettings(
                dose_fraction=1.0, incident_photons=1e5, kernel_gain=tuple(gain), kernel_gain_step_per_mm=1 / 96
            )
            scan = np.rint(insert_noise(clean, pixel, settings, 3, noise_free=True))
            found = measure_noise(scan, pixel)
            size = found.patch_size
            at = [tissue_corners(clean[..., z], size, spacing=size // 4) for z in range(clean.shape[2])]
            noise = np.concatenate([cut((scan - clean)[..., z], corners, size) for z, corners in enumerate(at)])
            power = periodograms(noise, pixel).mean(axis=0) - pixel[0] * pixel[1] / 12
            ring = rings(size, pixel)
            level = math.sqrt((ring.count * power).sum() / (size**2 * pixel[0] * pixel[1]))
            mean = (ring.count * ring.frequency * power).sum() / (ring.count * power).sum()
            print(
                f"  {name:24s} {title:8s} {level:6.2f} HU {mean:.3f} / mm: {found.level_hu / level:.3f} "
                f"{found.mean_frequency_per_mm / mean:.3f}  (errors stated {found.level_error:.3f}, {found.frequency_error:.3f})",
                flush=True,
            )


def known(folder: Path) -> None:
    """Measure known noise on real scans."""
    from ct_cncl.transforms.physics.noise_estimate import NoNoiseError, plane
    from ct_cncl.transforms.series import find_scans, read_scan, to_slices, voxel_spacing

    found: dict[float, list[tuple[float, float]]] = {1.0: [], 3.0: []}
    for source in find_scans(folder):
        scan = read_scan(source, allow_irregular=True)
        volume, order = to_slices(scan.hu, scan.affine)
        full = np.ascontiguousarray(volume[..., volume.shape[2] // 2][..., None]).astype(np.float32)
        spacing = voxel_spacing(order.affine)
        pixel = (float(spacing[0]), float(spacing[1]))
        try:
            before = measure_noise(full, pixel)
        except NoNoiseError:
            continue
        if len(before.corners) < 20:
            continue
        frequency, area = plane(pixel)
        settings = DoseSettings(dose_fraction=0.5, incident_photons=1e5)
        noise = insert_noise(full, pixel, settings, 7) - full
        for factor, each in found.items():
            own = radial_at(noise, before.corners, before.patch_size, pixel)
            scale = before.level_hu * math.sqrt(factor) / level_of(own, before.patch_size, pixel)
            low = np.rint(full + scale * noise)
            after = measure_noise(low, pixel)
            true = radial_at(scale * noise, after.corners, after.patch_size, pixel)
            ring = rings(after.patch_size, pixel)
            mean = float((ring.count * ring.frequency * true).sum() / (ring.count * true).sum())
            power = area * (after.power - before.power)
            level = math.sqrt(max(after.level_hu**2 - before.level_hu**2, 0)) / level_of(true, after.patch_size, pixel)
            each.append((level, float((power * frequency).sum() / power.sum()) / mean))
    for factor, rows in found.items():
        title = f"known: noise of {math.sqrt(factor):.2f} times the scan's own, {len(rows)} scans, found / true"
        for name, values in zip(("level", "mean frequency"), np.array(rows).T):
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            print(
                f"{title}, {name}: mean {values.mean():.3f}, median {middle:.3f}, 9 of 10 within {low:.3f} to {high:.3f}"
            )


def radial_at(noise: np.ndarray, corners: np.ndarray, size: int, pixel: tuple[float, float]) -> np.ndarray:
    """Mean periodogram (rings,) of one slice (x, y, 1) over given patches."""
    return periodograms(cut(noise[..., 0], corners[:, :2], size), pixel).mean(axis=0)


def level_of(power: np.ndarray, size: int, pixel: tuple[float, float]) -> float:
    """Standard deviation, HU, of noise with the mean periodogram ``power`` (rings,)."""
    return math.sqrt(float((rings(size, pixel).count * power).sum()) / (size**2 * pixel[0] * pixel[1]))


def main() -> None:
    """Run one comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("witness", choices=["lcd", "acr", "kernels", "known"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.witness == "known":
        known(options.path)
    elif options.witness == "kernels":
        kernels()
    elif options.witness == "lcd":
        lcd(options.path)
    else:
        acr(options.path, options.picture)


if __name__ == "__main__":
    main()
