import dataclasses

import numpy as np
import pytest
from pydicom.dataset import Dataset
from series_files import POSITIONS, ct_series, ct_slice, enhanced, nifti, save

from ct_cncl.transforms.series import Acquisition, read_scan

STATED = {
    "KVP": "120",
    "XRayTubeCurrent": "200",
    "ExposureTime": "500",
    "Exposure": "90",
    "RevolutionTime": 0.5,
    "SpiralPitchFactor": 0.8,
    "ConvolutionKernel": "B30f",
    "Manufacturer": "SIEMENS",
}
EXPECTED = Acquisition(
    kvp=120.0,
    tube_current_ma=200.0,
    exposure_time_ms=500.0,
    exposure_mas=90.0,
    revolution_time_s=0.5,
    pitch=0.8,
    slice_thickness_mm=5.0,
    kernel="B30f",
    manufacturer="SIEMENS",
)


def test_classic_ct_states_tube_slice_and_kernel(tmp_path):
    ct_series(tmp_path, POSITIONS, **STATED)
    assert read_scan(tmp_path).acquisition == EXPECTED


def test_the_median_of_a_modulated_current(tmp_path):
    for k, current in enumerate([100, 300, 180]):
        save(ct_slice(np.zeros((4, 6), int), POSITIONS[k], XRayTubeCurrent=str(current)), tmp_path / f"{k}.dcm")
    assert read_scan(tmp_path).acquisition.tube_current_ma == 180.0


def test_what_is_not_stated_is_none(tmp_path):
    ct_series(tmp_path, POSITIONS, SliceThickness=None)
    assert read_scan(tmp_path).acquisition == Acquisition()


def test_nifti_states_nothing(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", volume.astype(np.int16), np.diag([1, 1, 2, 1.0]))
    assert read_scan(path).acquisition is None


@pytest.mark.parametrize("value", ["", "0", "-5"])
def test_values_that_cannot_be_are_left_out(tmp_path, value):
    ct_series(tmp_path, POSITIONS, **(STATED | {"Exposure": value}))
    assert read_scan(tmp_path).acquisition == dataclasses.replace(EXPECTED, exposure_mas=None)


def test_damaged_values_do_not_keep_a_scan_from_being_read(tmp_path):
    ct_series(tmp_path, POSITIONS, **STATED)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert content.count(b"DS\x04\x00120 ") == 1
        path.write_bytes(content.replace(b"DS\x04\x00120 ", b"DS\x04\x00a.b "))
    assert read_scan(tmp_path).acquisition == dataclasses.replace(EXPECTED, kvp=None)


def test_a_kernel_of_two_values(tmp_path):
    ct_series(tmp_path, POSITIONS, ConvolutionKernel=["Br40d", "3"])
    assert read_scan(tmp_path).acquisition.kernel == "Br40d"


def test_enhanced_ct_states_it_in_functional_groups(tmp_path):
    def item(**values):
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        return inner

    ds = enhanced(np.zeros((2, 4, 6), int), POSITIONS[:2])
    ds.Manufacturer = "Canon"
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.CTXRayDetailsSequence = [item(KVP="100")]
    shared.CTReconstructionSequence = [item(ConvolutionKernel="FC18")]
    shared.CTTableDynamicsSequence = [item(SpiralPitchFactor=1.5)]
    shared.CTAcquisitionDetailsSequence = [item(RevolutionTime=0.35)]
    for frame, current in zip(ds.PerFrameFunctionalGroupsSequence, (100.0, 140.0), strict=True):
        frame.CTExposureSequence = [item(XRayTubeCurrentInmA=current, ExposureTimeInms=350.0, ExposureInmAs=50.0)]
    found = read_scan(save(ds, tmp_path / "a.dcm"), check_hu=False).acquisition
    assert found == Acquisition(
        kvp=100.0,
        tube_current_ma=120.0,
        exposure_time_ms=350.0,
        exposure_mas=50.0,
        revolution_time_s=0.35,
        pitch=1.5,
        slice_thickness_mm=3.0,
        kernel="FC18",
        manufacturer="Canon",
    )
