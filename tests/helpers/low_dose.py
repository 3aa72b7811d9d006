"""Small scans at full dose, and the call of ``simulate`` for its tests."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_archive import write_series

from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.run import simulate_scans

SIZE, PIXEL = 80, 4.0
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 39.5, np.arange(SIZE) - 39.5, indexing="ij"))
LPS = np.diag([-PIXEL, -PIXEL, 3.0, 1.0])  # stored in the order in which slices are shown
PHOTONS = 3e4


def cylinder(slices=2, padding=None, seed=0):
    """Water with an insert in air, int16 (x, y, z)."""
    hu = np.where(RADIUS < 26, 0, -990) + np.random.default_rng(seed).normal(0, 5, (slices, SIZE, SIZE))
    hu[:, 30:36, 50:56] = 300
    if padding is not None:
        hu[:, RADIUS > 40] = padding
    return np.moveaxis(hu, 0, 2).round().astype(np.int16)


def save(path: Path, volume: np.ndarray, affine=LPS) -> Path:
    """A NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def dicom(folder: Path, volume: np.ndarray, number: int = 3, **changes) -> np.ndarray:
    """A DICOM series of :func:`cylinder`'s pixels, every 2.5 mm."""
    tags = {"PixelSpacing": [PIXEL, PIXEL], "PatientPosition": "HFS", "KVP": "120", "FrameOfReferenceUID": "1.2.9"}
    write_series(folder, number, slices=volume.shape[2], side=SIZE, **tags)
    import pydicom

    for k, path in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(path)
        ds.PixelData = np.ascontiguousarray(volume[..., k].T).tobytes()
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.save_as(path)
    return volume


def run(source, out, **options):
    """Simulate with known photons."""
    return simulate_scans(
        SimulateOptions(source, out, **{"dose_fraction": 0.25, "incident_photons": PHOTONS, **options})
    )


def values(path):
    return np.asarray(nib.load(path).dataobj)


def record(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())
