"""A DICOM slice for tests that need tags."""

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def dicom_slice(stored, z, pixel):
    """One CT slice from (rows, columns) values, HU + 1024, at z mm, with the tags of a Siemens scanner and "NAME"."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CTImageStorage, generate_uid(), "1.2.3"
    ds.Modality, ds.PatientID, ds.SeriesNumber, ds.ImageType = "CT", "NAME", 2, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *stored.shape, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [pixel, pixel], 5, [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient, ds.RescaleSlope, ds.RescaleIntercept = [0.0, 0.0, z], 1, -1024
    ds.KVP, ds.Exposure, ds.Manufacturer, ds.ConvolutionKernel = "120", "100", "SIEMENS", "B30f"
    ds.PixelData = stored.astype("<u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    return ds
