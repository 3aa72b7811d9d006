"""Tiny NIfTI and DICOM files with known values and positions."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from ct_cncl.transforms.series import ScanError, read_scan

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
POSITIONS = [(-10.0, 20.0, 100.0 + 2.5 * k) for k in range(5)]


def nifti(path: Path, stored: np.ndarray, affine: np.ndarray, slope=np.nan, inter=np.nan, **changes) -> Path:
    """Write stored values as they are; header fields by name. `endian=">"` writes big-endian."""
    header = nib.Nifti1Header(endianness=changes.pop("endian", "<"))
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=changes.pop("sform", 2))
    header.set_qform(affine, code=changes.pop("qform", 1), strip_shears=True)
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, inter, 352
    for name, value in changes.items():
        header[name] = value
    with nib.openers.ImageOpener(str(path), "wb") as stream:
        header.write_to(stream)
        stream.write(stored.astype(header.get_data_dtype()).tobytes(order="F"))
    return path


def ct_slice(stored: np.ndarray, position, *, uid="1.2.3.1", slope="1", intercept="-1024", signed=True, **changes):
    """One classic CT slice from (rows, columns) stored values; `changes` by keyword, None deletes."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.PatientID = uid, 2, "P1"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *stored.shape, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [0.5, 0.5], 5, list(AXIAL)
    ds.ImagePositionPatient = [float(v) for v in position]
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept, "HU"
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def ct_series(folder: Path, positions, *, stored=None, **changes) -> np.ndarray:
    """A series of 4 rows x 6 columns in shuffled file order; returns stored (slices, rows, columns)."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 2000, (len(positions), 4, 6)) if stored is None else stored
    for name, k in enumerate(rng.permutation(len(positions))):
        save(ct_slice(stored[k], positions[k], **changes), folder / f"{name:03d}.dcm")
    return stored


def enhanced(stored: np.ndarray, positions, *, units=None):
    """Enhanced CT: rescale, spacing and orientation are shared; position is per frame, and frame 1 has its own rescale."""
    gone = ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient")
    gone += ("RescaleSlope", "RescaleIntercept", "RescaleType")
    ds = ct_slice(stored[0], positions[0], **dict.fromkeys(gone))
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedCTImageStorage, len(stored)
    ds.PixelData = stored.astype("<i2").tobytes()

    def item(**values):
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        return inner

    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=3)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
    )
    if units:
        code = item(CodeValue=units, CodingSchemeDesignator="UCUM")
        shared.RealWorldValueMappingSequence = [item(MeasurementUnitsCodeSequence=[code])]
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[float(v) for v in position])],
            PixelValueTransformationSequence=[item(RescaleSlope=1 + k, RescaleIntercept=-1000, RescaleType="HU")],
        )
        for k, position in enumerate(positions)
    ]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    return ds


def refused(path, words, **options):
    with pytest.raises(ScanError) as caught:
        read_scan(path, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
