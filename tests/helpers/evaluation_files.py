"""Tiny scans of several methods for tests of evaluations."""

import nibabel as nib
import numpy as np

SHAPE = (72, 64, 3)
AFFINE = np.diag([-0.8, -0.8, 5.0, 1.0])


def anatomy(seed=0, shape=SHAPE):
    """A body of soft tissue with fat and bone in air, in whole HU."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1000.0)
    hu[8:-8, 8:-8] = -100
    hu[12:-12, 12:-12] = 50 + seed
    hu[30:44, 14:24] = 700
    return np.rint(hu + rng.normal(0, 4, shape))


def noisy(hu, sd, seed=1):
    """The same with white noise."""
    return np.rint(hu + np.random.default_rng(seed).normal(0, sd, hu.shape))


def save(path, hu, affine=AFFINE, dtype=np.int16):
    """Write a NIfTI file, and its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(hu, dtype), affine), path)
    return path


def three_patients(root, names=("p1_scan", "p2_scan", "p3_scan")):
    """Folders full, low and denoised under root; the last holds results with half of the noise."""
    for number, name in enumerate(names):
        reference = anatomy(number)
        low = noisy(reference, 30, 10 + number)
        save(root / "full" / f"{name}.nii.gz", reference)
        save(root / "low" / f"{name}.nii.gz", low)
        save(root / "denoised" / f"{name}_denoised.nii.gz", np.rint((reference + low) / 2))
    return root
