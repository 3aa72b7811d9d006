import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage
from series_files import AXIAL, POSITIONS, ct_series, ct_slice, enhanced, refused, save
from tiny_runs import SHARED

from ct_cncl.transforms.series import ScanError, find_scans, read_scan, write_nifti


def test_hu_of_a_known_voxel_is_exact_not_20_7_too_high(tmp_path):
    """Regression: the peer's reader maps every stored value 20.7 HU off; ours must be exact to the last bit."""
    stored = np.full((3, 4, 6), 24)
    stored[1, 2, 3] = 1064  # second slice, third row, fourth column
    ct_series(tmp_path, POSITIONS[:3], stored=stored)
    scan = read_scan(tmp_path)
    assert scan.hu[3, 2, 1] == 40.0
    assert scan.hu[0, 0, 0] == -1000.0
    assert (scan.hu == 40.0).sum() == 1


def test_shuffled_files_are_sorted_and_placed(tmp_path):
    """affine @ index equals ImagePositionPatient arithmetic in RAS, with non-square pixels."""
    stored = ct_series(tmp_path, POSITIONS, PixelSpacing=[0.75, 0.5])  # 0.75 between rows (y), 0.5 between columns (x)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, stored.transpose(2, 1, 0) - 1024)
    for column, row, z in [(0, 0, 0), (5, 0, 0), (0, 3, 2), (5, 3, 4)]:
        x, y, height = POSITIONS[z]
        expected = (-(x + 0.5 * column), -(y + 0.75 * row), height)
        np.testing.assert_allclose((scan.affine @ (column, row, z, 1))[:3], expected, atol=1e-9)
    np.testing.assert_allclose(scan.spacing, (0.5, 0.75, 2.5))
    assert (scan.patient, scan.padding, scan.irregular, scan.source) == ("P1", None, False, tmp_path)
    assert "P1" not in repr(scan)


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0)],
)
def test_any_orientation(tmp_path, orientation):
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    positions = [np.array([5.0, -6.0, 7.0]) + k * 1.5 * np.cross(row, column) for k in range(4)]
    stored = ct_series(tmp_path, positions, PixelSpacing=[0.75, 0.5], ImageOrientationPatient=list(orientation))
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, stored.transpose(2, 1, 0) - 1024)
    lps = positions[2] + 5 * 0.5 * row + 3 * 0.75 * column
    np.testing.assert_allclose((scan.affine @ (5, 3, 2, 1))[:3], lps * (-1, -1, 1), atol=1e-6)


def test_gantry_tilt_shears_the_affine(tmp_path):
    tilt = np.deg2rad(18.5)
    orientation = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    ct_series(tmp_path, POSITIONS, ImageOrientationPatient=orientation)
    scan = read_scan(tmp_path)
    np.testing.assert_allclose(scan.affine[:3, 2], (0, 0, 2.5), atol=1e-9)
    assert abs(scan.affine[:3, 1] @ scan.affine[:3, 2]) > 0.3  # not perpendicular: sheared
    for z, (x, y, height) in enumerate(POSITIONS):
        np.testing.assert_allclose((scan.affine @ (0, 0, z, 1))[:3], (-x, -y, height), atol=1e-6)


@pytest.mark.parametrize(("signed", "value"), [(True, -2000), (False, 40000)])
def test_sign_and_padding(tmp_path, signed, value):
    stored = np.zeros((1, 4, 6), int)
    stored[0, 0] = value
    ct_series(tmp_path, POSITIONS[:1], stored=stored, signed=signed, PixelPaddingValue=value)
    scan = read_scan(tmp_path)
    assert (scan.hu[:, 0, 0] == value - 1024).all()
    assert scan.padding == value - 1024
    assert scan.padded.sum() == 6


def test_padding_range_and_padding_of_the_wrong_sign(tmp_path):
    """-2000 stored as unsigned 63536 beside signed pixels is -2000."""
    stored = np.array([[[-2000, -1990, -1980, 0, 10, 20]]])
    ds = ct_slice(stored[0], POSITIONS[0], PixelPaddingRangeLimit=-1990)
    ds.add_new(0x00280120, "US", 63536)
    save(ds, tmp_path / "a.dcm")
    scan = read_scan(tmp_path)
    assert (scan.padding, scan.padding_limit) == (-3024, -3014)
    assert scan.padded[:, 0, 0].tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("signed", "raw", "expected"),
    [(False, 0xF123, 0x123), (True, 0x0FFF, -1), (True, 0xF123, 0x123), (True, 0x0800, -2048)],
)
def test_bits_beyond_the_stored_ones_do_not_count(tmp_path, signed, raw, expected):
    stored = np.full((4, 6), raw, np.uint16)
    stored = stored.view(np.int16) if signed else stored
    save(ct_slice(stored, POSITIONS[0], signed=signed, BitsStored=12, HighBit=11), tmp_path / "a.dcm")
    assert (read_scan(tmp_path, check_hu=False).hu == expected - 1024).all()


def test_slope_and_intercept_of_each_slice(tmp_path):
    values = [(2.0002442, -4047.0), (1.0, -1024.0), (0.001, 3.5)]
    for k, (slope, intercept) in enumerate(values):
        ds = ct_slice(np.full((4, 6), 2000), POSITIONS[k], slope=str(slope), intercept=str(intercept), signed=False)
        save(ds, tmp_path / f"{k}")
    scan = read_scan(tmp_path, check_hu=False)
    expected = [np.float32(2000 * slope + intercept) for slope, intercept in values]
    assert scan.hu[0, 0].tolist() == expected
    assert write_nifti(scan.hu, tmp_path / "out.nii", scan).dtype == "float32"
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").get_fdata(dtype=np.float32), scan.hu)


@pytest.mark.parametrize(("top", "dtype"), [(11024, "int16"), (32767, "int16"), (60000, "int32")])
def test_nifti_of_a_series(tmp_path, top, dtype):
    stored = np.zeros((3, 4, 6), int)
    stored[1, 2, 3] = top
    ct_series(tmp_path / "in", POSITIONS[:3], stored=stored, signed=False, PixelSpacing=[0.75, 0.5])
    scan = read_scan(tmp_path / "in")
    report = write_nifti(scan.hu, tmp_path / "out.nii.gz", scan)
    image = nib.load(tmp_path / "out.nii.gz")
    assert (report.dtype, report.clipped) == (dtype, 0)
    np.testing.assert_array_equal(image.get_fdata(), scan.hu)
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)


def test_two_series_in_one_folder_are_never_mixed(tmp_path):
    ct_series(tmp_path / "a", POSITIONS, uid="1.2.1", SeriesNumber=1)
    ct_series(tmp_path / "b", POSITIONS[:3], uid="1.2.2", SeriesNumber=2, stored=np.full((3, 4, 6), 7))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in sorted(tmp_path.glob("[ab]/*")):
        file.rename(mixed / f"{file.parent.name}{file.name}")
    found = find_scans(mixed)
    assert [source.name for source in found] == ["mixed_series001", "mixed_series002"]
    assert [read_scan(source).hu.shape[2] for source in found] == [5, 3]
    assert (read_scan(str(found[1])).hu == 7 - 1024).all()
    assert "1.2.2" not in str(found[1]) + repr(found[1])
    refused(mixed, "expected one scan but got 2")


def test_series_of_two_geometries_is_split(tmp_path):
    ct_series(tmp_path / "axial", POSITIONS)
    ct_series(tmp_path / "coronal", POSITIONS[:1], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    found = find_scans(tmp_path)
    name = f"{tmp_path.name}_series002"
    assert [(source.name, len(source.files)) for source in found] == [
        (f"{name}_part1", 5),
        (f"{name}_part2", 1),
    ]
    assert read_scan(str(found[1])).hu.shape == (6, 4, 1)


def test_equal_series_numbers_get_different_names(tmp_path):
    for k in (1, 2):
        save(ct_slice(np.eye(4), POSITIONS[0], uid=f"1.2.{k}"), tmp_path / f"{k}.dcm")
    names = [source.name for source in find_scans(tmp_path)]
    assert len(set(names)) == 2


def test_localizers_and_reports_are_passed_over(tmp_path):
    stored = ct_series(tmp_path, POSITIONS)
    save(ct_slice(np.eye(9), POSITIONS[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "scout.dcm")
    save(ct_slice(np.eye(9), POSITIONS[0], SOPClassUID=SecondaryCaptureImageStorage), tmp_path / "dose.dcm")
    assert read_scan(tmp_path).hu.shape == stored.transpose(2, 1, 0).shape
    for name in ("scout", "dose"):
        with pytest.raises(ScanError, match="expected a CT image but got"):
            find_scans(tmp_path / f"{name}.dcm")


def test_single_file_is_a_single_slice(tmp_path):
    ct_series(tmp_path, POSITIONS)
    scan = read_scan(tmp_path / "000.dcm")
    assert scan.hu.shape == (6, 4, 1)
    assert scan.spacing[2] == 5.0  # SliceThickness
    assert scan.affine[2, 3] in {p[2] for p in POSITIONS}


def test_run_length_coding_reads_the_same(tmp_path):
    ds = ct_slice(np.arange(24).reshape(4, 6), POSITIONS[0])
    save(ds, tmp_path / "plain.dcm")
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "packed.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "packed.dcm").hu, read_scan(tmp_path / "plain.dcm").hu)


def test_enhanced_multiframe(tmp_path):
    stored = np.random.default_rng(5).integers(0, 900, (3, 4, 6))
    save(enhanced(stored, [POSITIONS[k] for k in (2, 0, 1)]), tmp_path / "a.dcm")
    scan = read_scan(tmp_path)
    assert scan.hu.shape == (6, 4, 3)
    for z, frame in enumerate((1, 2, 0)):
        np.testing.assert_array_equal(scan.hu[..., z], stored[frame].T * (1 + frame) - 1000)
    np.testing.assert_allclose(scan.affine @ (5, 3, 2, 1), (10 - 2.5, -20 - 2.25, 105, 1))


def test_enhanced_map_is_no_hu(tmp_path):
    save(enhanced(np.ones((2, 4, 6)), POSITIONS[:2], units="ml/100ml/s"), tmp_path / "a.dcm")
    refused(tmp_path / "a.dcm", "got values stated in ml/100ml/s: a map")
    assert read_scan(tmp_path, check_hu=False).hu.shape == (6, 4, 2)


def read_or_say_why(folder):
    try:
        return read_scan(folder)
    except ScanError as error:
        return str(error)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/ct")
def test_real_series_read_or_say_why():
    outcome = {}
    for folder in sorted([*(SHARED / "dicom").iterdir(), *(SHARED / "dicom_odd").iterdir()]):
        outcome[folder.name] = read_or_say_why(folder)
    assert len(outcome) == 24
    for message in (value for value in outcome.values() if isinstance(value, str)):
        assert "expected" in message
        assert "\n" not in message
    assert "1.14 to 7.38 mm" in outcome["ge_head_tilt_varspacing"]
    reference = outcome["cs_syntax_lossless_1_2"].hu
    for name, scan in outcome.items():
        if "lossless" in name and not isinstance(scan, str):
            np.testing.assert_array_equal(scan.hu, reference, err_msg=name)
    np.testing.assert_allclose(outcome["rtutils_slope0p001_nonsquare"].spacing, (2.5, 3.5, 4.5), atol=1e-6)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/ct")
def test_real_dicom_agrees_with_its_nifti():
    """Same patient, converted independently and clipped to [-1024, 3071]: every voxel equal, at the same place."""
    dicom, whole = read_scan(SHARED / "dicom" / "crlm1004"), read_scan(SHARED / "train" / "crlm1004_cap.nii.gz")
    there = np.linalg.inv(whole.affine) @ dicom.affine
    steps = np.rint(np.diag(there)[:3]).astype(int)
    start = np.rint(there[:3, 3]).astype(int)
    np.testing.assert_allclose(there, np.block([[np.diag(steps), start[:, None]], [0, 0, 0, 1]]), atol=1e-3)
    index = [s + d * np.arange(n) for s, d, n in zip(start, steps, dicom.hu.shape, strict=True)]
    kept = (index[2] >= 0) & (index[2] < whole.hu.shape[2])
    assert kept.sum() == 20
    np.testing.assert_array_equal(dicom.hu.clip(-1024, 3071), whole.hu[np.ix_(*index)])
