"""Enhanced multi-frame CT, built so that a validator finds nothing wrong with it."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid


def item(**values) -> Dataset:
    inner = Dataset()
    for name, value in values.items():
        setattr(inner, name, value)
    return inner


def code(value, scheme, meaning) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def valid_enhanced(stored: np.ndarray, positions, *, slope="1", intercept="-1024", bits=12, signed=False) -> Dataset:
    """Enhanced CT with all mandatory attributes; rescale, type and acquisition are shared, position is per frame."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = generate_uid(), ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "030405", "1", ""
    ds.SeriesDate, ds.SeriesTime = "20200102", "030405"
    ds.ReferringPhysicianName, ds.PatientName, ds.PatientID = "Doe^Jane", "Roe^Richard", "P1"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientPosition = "19500607", "M", "HFS"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "CT", 2, 1, 1
    ds.Manufacturer, ds.ManufacturerModelName = "ct-cncl tests", "none"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.ImageType, ds.PixelPresentation = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "MONOCHROME"
    ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20200102030405", 1.0
    ds.ContentDate, ds.ContentTime, ds.ContentQualification = "20200102", "030405", "RESEARCH"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.AcquisitionContextSequence = []
    organization = generate_uid()
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        item(DimensionOrganizationUID=organization, DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111)
    ]
    ds.SharedFunctionalGroupsSequence = [_shared(slope, intercept)]
    ds.PerFrameFunctionalGroupsSequence = [_frame(k, position) for k, position in enumerate(positions)]
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    return ds


def _shared(slope, intercept) -> Dataset:
    anatomy = item(FrameLaterality="U", AnatomicRegionSequence=[code("113345001", "SCT", "Abdomen")])
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        FrameAnatomySequence=[anatomy],
        PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")],
        FrameVOILUTSequence=[item(WindowCenter="40", WindowWidth="400")],
        CTImageFrameTypeSequence=[
            item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        CTAcquisitionTypeSequence=[
            item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
        ],
        CTAcquisitionDetailsSequence=[
            item(
                RotationDirection="CW", RevolutionTime=0.5, SingleCollimationWidth=0.6, TotalCollimationWidth=19.2,
                TableHeight=100.0, GantryDetectorTilt=0.0, DataCollectionDiameter=500.0,
            )
        ],
        CTTableDynamicsSequence=[item(TableSpeed=20.0, TableFeedPerRotation=10.0, SpiralPitchFactor=1.0)],
        CTGeometrySequence=[item(DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=550.0)],
        CTReconstructionSequence=[
            item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ", ConvolutionKernel="B30f", ConvolutionKernelGroup="SOFT_TISSUE",
                ReconstructionPixelSpacing=[0.75, 0.5], ReconstructionDiameter=300.0,
                ReconstructionAngle=360.0, ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            item(
                ExposureTimeInms=500.0, XRayTubeCurrentInmA=200.0, ExposureInmAs=100.0, ExposureModulationType="NONE",
                CTDIvol=10.0, CTDIPhantomTypeCodeSequence=[code("113691", "DCM", "IEC Body Dosimetry Phantom")],
                WaterEquivalentDiameter=300.0,
                WaterEquivalentDiameterCalculationMethodCodeSequence=[code("113987", "DCM", "AAPM 220")],
            )
        ],
        CTXRayDetailsSequence=[
            item(KVP="120", FocalSpots=[1.0], FilterType="FLAT", FilterMaterial=["ALUMINUM"], CalciumScoringMassFactorPatient=1.0)
        ],
        IrradiationEventIdentificationSequence=[item(IrradiationEventUID=generate_uid())],
    )  # fmt: skip


def _frame(k: int, position) -> Dataset:
    content = item(
        FrameAcquisitionNumber=1, FrameReferenceDateTime="20200102030405", FrameAcquisitionDateTime="20200102030405",
        FrameAcquisitionDuration=500.0, StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1],
    )  # fmt: skip
    return item(
        FrameContentSequence=[content],
        PlanePositionSequence=[item(ImagePositionPatient=[float(value) for value in position])],
        CTPositionSequence=[
            item(
                TablePosition=float(position[2]),
                ReconstructionTargetCenterPatient=[0.0, 0.0, float(position[2])],
                DataCollectionCenterPatient=[0.0, 0.0, float(position[2])],
            )
        ],
    )
