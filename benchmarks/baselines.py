"""The classical baseline of the model card: non-local means, tuned on a training split.

    .venv/bin/python benchmarks/baselines.py LOW --train NORMAL_DOSE --out DIR [--dose 0.25] [--scans 10]
    .venv/bin/python benchmarks/baselines.py LOW --train NORMAL_DOSE                       # only choose settings
    .venv/bin/python benchmarks/baselines.py LOW --settings 0.7,5,6 --out DIR              # with settings chosen before

Every scan under LOW is denoised slice by slice with scikit-image's `denoise_nl_means` (fast mode, given the noise level) and
written in its own geometry as NAME_nlm.nii.gz. The noise level is measured in the scan's soft tissue. The strength h (as a
multiple of that level), the patch size and the search window are chosen for the best mean PSNR (range 4096 HU) on the middle
of one slice from each of several scans under NORMAL_DOSE, to which this project adds the noise of a lower dose. They are
never chosen on the scans that are scored. Then:

    ct-cncl evaluate REFERENCE DIR --input LOW --out report
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skimage.restoration import denoise_nl_means

from ct_cncl.pipeline.metrics import psnr
from ct_cncl.transforms.anatomy.regions import noise_level, padding_mask
from ct_cncl.transforms.physics import DoseSettings
from ct_cncl.transforms.physics.simulation import calibrate, low_dose, own_seed, pixel_of
from ct_cncl.transforms.series import find_scans, from_slices, read_scan, to_slices, write_nifti

RANGE_HU = 4096.0
MIDDLE = 256
"""Side in pixels of the region used to choose settings: a quarter of the time, and still most of the body."""


class NonLocalMeans(NamedTuple):
    """Settings of the filter."""

    strength: float
    """h divided by the scan's noise level."""
    patch: int
    """Side of the patches compared, pixels."""
    reach: int
    """How far away similar patches are searched for, pixels."""


GRID = [NonLocalMeans(h, *size) for h, size in itertools.product((0.5, 0.7, 0.9), ((3, 6), (5, 6), (7, 11)))]


def non_local_means(hu_slice: np.ndarray, noise_hu: float, settings: NonLocalMeans) -> np.ndarray:
    """Denoise a slice (x, y), HU; padding stays unchanged.

    Double precision, because the fast mode sums squared differences over the whole slice, up to 4096^2 HU^2 per pixel.
    """
    image = np.asarray(hu_slice, dtype=np.float64)
    result = denoise_nl_means(
        image,
        patch_size=settings.patch,
        patch_distance=settings.reach,
        h=settings.strength * noise_hu,
        sigma=noise_hu,
        fast_mode=True,
        preserve_range=True,
    )
    return np.where(padding_mask(image), image, result)


def measured_psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR outside scanner padding, dB, range 4096 HU."""
    mask, *slices = (
        torch.from_numpy(np.ascontiguousarray(values))[None, None]
        for values in (~padding_mask(reference), image, reference)
    )
    return psnr(*slices, data_range=RANGE_HU, mask=mask).item()


def training_slices(folder: Path, *, dose: float, scans: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(low dose, reference, noise level) of the central region of the middle slice, for scans spread evenly over a folder."""
    sources = find_scans(folder)
    found = []
    for number in np.unique(np.linspace(0, len(sources) - 1, scans).round().astype(int)):
        scan = read_scan(sources[number])
        volume, order = to_slices(scan.hu, scan.affine)
        reference = np.ascontiguousarray(volume[..., [volume.shape[2] // 2]], dtype=np.float32)
        pixel = pixel_of(scan, order)
        settings = DoseSettings(dose_fraction=dose)
        calibration = calibrate(reference, pixel, settings, own_seed(seed, sources[number].name))
        low = low_dose(reference, pixel, calibration.apply(settings), own_seed(seed, sources[number].name, 1))
        middle = tuple(slice(max(0, (side - MIDDLE) // 2), (side + MIDDLE) // 2) for side in reference.shape[:2])
        found.append((np.rint(low[middle][..., 0]), reference[middle][..., 0], noise_level(low)))
    return found


def choose(slices: list[tuple[np.ndarray, np.ndarray, float]], grid: list[NonLocalMeans]) -> NonLocalMeans:
    """Return the settings with the best mean PSNR, and print the PSNR of each."""
    before = np.mean([measured_psnr(low, reference) for low, reference, _ in slices])
    print(f"{len(slices)} training slices, input {before:.2f} dB")
    reached = {}
    for settings in grid:
        after = [measured_psnr(non_local_means(low, noise, settings), reference) for low, reference, noise in slices]
        reached[settings] = float(np.mean(after))
        print(
            f"h {settings.strength:g} x noise, patches of {settings.patch}, reach {settings.reach}: {reached[settings]:.2f} dB",
            flush=True,
        )
    return max(reached, key=lambda settings: reached[settings])


def denoise(folder: Path, out: Path, settings: NonLocalMeans) -> None:
    """Denoise every scan of a folder and write the results."""
    for source in find_scans(folder):
        scan = read_scan(source)
        volume, order = to_slices(scan.hu, scan.affine)
        noise = noise_level(volume)
        started = time.perf_counter()
        result = np.stack([non_local_means(each, noise, settings) for each in np.moveaxis(volume, 2, 0)], axis=2)
        seconds = (time.perf_counter() - started) / volume.shape[2]
        path = out / source.relative / f"{source.name}_nlm{source.suffix}"
        write_nifti(from_slices(result.astype(np.float32), order), path, scan, overwrite=True)
        print(f"noise {noise:5.1f} HU, {volume.shape[2]:3d} slices, {seconds:.2f} s a slice", flush=True)


def main() -> None:
    """Choose the settings, then denoise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path, help="low-dose scans, NIfTI or DICOM")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--train", type=Path, help="normal-dose scans of the training split, on which to choose the settings"
    )
    source.add_argument(
        "--settings",
        metavar="H,PATCH,REACH",
        help="h divided by the noise level, patch side and search distance in pixels",
    )
    parser.add_argument("--out", type=Path, help="folder for the results; default: only choose the settings")
    parser.add_argument("--dose", type=float, default=0.25)
    parser.add_argument("--scans", type=int, default=10, help="number of training scans used, one slice each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise added to them")
    options = parser.parse_args()
    if options.settings:
        strength, patch, reach = options.settings.split(",")
        chosen = NonLocalMeans(float(strength), int(patch), int(reach))
    else:
        slices = training_slices(options.train, dose=options.dose, scans=options.scans, seed=options.seed)
        chosen = choose(slices, GRID)
        print(f"chosen: --settings {chosen.strength:g},{chosen.patch},{chosen.reach}")
    if options.out:
        denoise(options.low, options.out, chosen)


if __name__ == "__main__":
    main()
