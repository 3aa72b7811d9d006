"""A small DICOM archive: studies with a few short series each and known values."""

import json
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

from ct_cncl.transforms.series import read_scan

SLICES, SIDE = 3, 32


def write_series(
    folder: Path, number: int, *, slices: int = SLICES, side: int = SIDE, uid: str = "", **changes
) -> np.ndarray:
    """A classic series, 16 bits signed, intercept 0; returns HU (slices, rows, columns)."""
    hu = np.random.default_rng(number).integers(-1000, 800, (slices, side, side)).astype(np.int16)
    folder.mkdir(parents=True, exist_ok=True)
    root = uid or f"1.2.826.{number}"
    for k in range(slices):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"{root}.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.3.{number // 2}", root
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", number, k + 1
        ds.PatientID, ds.PatientName = f"Patient{number // 2}", "Zaphod^Beeblebrox"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Rows, ds.Columns, ds.SamplesPerPixel = side, side, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [0.7, 0.7], 2.5, [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, 2.5 * k]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "0", "HU"
        ds.PixelData = hu[k].tobytes()
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        ds.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return hu


def write_archive(folder: Path, count: int) -> dict[int, np.ndarray]:
    """Write ``count`` series, two per study, each in its own folder; return HU by series number."""
    return {k: write_series(folder / f"study{k // 2}" / f"series{k}", k) for k in range(1, count + 1)}


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def check_all(out, expected):
    """Every series is there once, complete and valid, with its own values, and no other file is left."""
    results = sorted(path for path in out.rglob("*_denoised") if path.is_dir())
    assert len(results) == len(expected)
    uids = set()
    for path in results:
        number = int(path.name.removesuffix("_denoised")[-3:])
        np.testing.assert_array_equal(read_scan(path).hu, expected[number].transpose(2, 1, 0) + 25)
        uids |= {pydicom.dcmread(file).SOPInstanceUID for file in path.iterdir()}
    assert len(uids) == sum(len(hu) for hu in expected.values())
    assert not (out / ".unfinished").exists()
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(files) == len(expected) + 1  # one record each, and the manifest
    lines = manifest(out)
    assert len(lines) == len({line["source"] for line in lines}) == len(expected)
    assert all(line["state"] == "done" and line["error"] is None for line in lines)
