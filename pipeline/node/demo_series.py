"""A phantom's low-dose scan as a DICOM series, for the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

_DOSE = 0.25
_MARGIN_HU = 1024


def write_phantom_series(folder: Path, slices: int, *, size: int = 512) -> list[Path]:
    """Write a phantom at quarter dose as DICOM CT images.

    Args:
        folder: created if missing.
        slices: number of slices.
        size: side of a slice in pixels.

    Returns:
        The files, in slice order.
    """
    from ct_cncl.transforms.dataset.simulated_cases import phantom_cases

    pair = phantom_cases(1, first_seed=1, slices=slices, dose_fraction=_DOSE, size=size)[0].make()
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.sqrt((np.asarray(pair.affine)[:3, :3] ** 2).sum(axis=0))
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for k in range(slices):
        dataset = _slice(np.asarray(pair.image)[..., k].T, k, [float(step) for step in spacing])
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        files.append(folder / f"{k + 1:04d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def _slice(hu: np.ndarray, number: int, spacing: list[float]) -> Dataset:
    """One CT image from HU of shape (rows, columns)."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Phantom", "PHANTOM"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.StudyID, dataset.AccessionNumber = "", "O", "1", ""
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20000101", "120000", ""
    dataset.Manufacturer, dataset.SeriesNumber, dataset.InstanceNumber = "ct-cncl demo", 2, number + 1
    dataset.SeriesDescription, dataset.StudyDescription = "Phantom, quarter dose", "Demo"
    dataset.ImageType, dataset.KVP, dataset.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], "120", 1
    dataset.PositionReferenceIndicator, dataset.PatientPosition = "", "HFS"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelSpacing, dataset.SliceThickness = [f"{spacing[1]:.6g}", f"{spacing[0]:.6g}"], f"{spacing[2]:.6g}"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = (
        [1, 0, 0, 0, 1, 0],
        [0, 0, f"{number * spacing[2]:.6g}"],
    )
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", str(-_MARGIN_HU), "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.PixelData = (np.rint(hu) + _MARGIN_HU).clip(0, 65535).astype("<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        CTImageStorage,
        dataset.SOPInstanceUID,
    )
    return dataset
