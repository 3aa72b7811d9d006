import re

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLSLossless
from series_files import AXIAL, POSITIONS, ct_series, ct_slice, refused, save

from ct_cncl.transforms.series import ScanError, read_scan


def test_duplicates_are_refused(tmp_path):
    ct_series(tmp_path, POSITIONS)
    save(ct_slice(np.eye(4, 6), POSITIONS[2]), tmp_path / "copy.dcm")
    refused(tmp_path, "expected one slice at each position but got two at 105.00 mm (")
    refused(tmp_path, "copy.dcm")


def test_missing_slice_is_refused_and_named(tmp_path):
    ct_series(tmp_path, POSITIONS[:2] + POSITIONS[3:])
    refused(tmp_path, "expected slices every 2.50 mm but got 1 missing, the first between 102.50 and 107.50 mm (")
    scan = read_scan(tmp_path, allow_irregular=True)
    assert scan.irregular
    np.testing.assert_allclose(scan.spacing[2], 10 / 3)


@pytest.mark.parametrize("missing", [1, 150, 298])
def test_one_of_300_slices_missing(tmp_path, missing):
    from ct_cncl.transforms.series.dicom import _irregular
    from ct_cncl.transforms.series.scan import Frame

    frames = [
        Frame(tmp_path / str(k), None, (4, 6), np.array([0, 0, 0.625 * k]), np.array(AXIAL), (1, 1), 1, 1, 0)
        for k in range(300)
    ]
    normal = np.array([0.0, 0.0, 1.0])
    assert _irregular(frames, normal) == ("", ())
    text, between = _irregular(frames[:missing] + frames[missing + 1 :], normal)
    assert "1 missing" in text
    assert between == (frames[missing - 1], frames[missing + 1])


def test_rounded_positions_are_no_gap(tmp_path):
    ct_series(tmp_path, [(0, 0, round(0.625 * k, 2)) for k in range(9)])
    assert not read_scan(tmp_path).irregular


def test_variable_spacing_is_refused(tmp_path):
    ct_series(tmp_path, [(0, 0, z) for z in (0, 4.22, 8.44, 9.58, 16.96)])
    refused(tmp_path, "got steps from 1.14 to 7.38 mm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RescaleSlope": None}, "expected RescaleSlope and RescaleIntercept"),
        ({"RescaleIntercept": None}, "expected RescaleSlope and RescaleIntercept"),
        ({"RescaleSlope": "0"}, "expected RescaleSlope and RescaleIntercept"),
        ({"RescaleType": "OD"}, "got values stated in OD"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient but got none"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient but got none"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two perpendicular unit vectors"),
        ({"PixelSpacing": None}, "PixelSpacing but got none"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing above 0 mm"),
        ({"SamplesPerPixel": 3}, "got 3 (colour)"),
        ({"SeriesInstanceUID": None}, "no SeriesInstanceUID"),
        ({"PixelData": None}, "no pixels"),
        ({"Rows": 5}, "complete DICOM file but got a damaged one"),
        ({"intercept": "0"}, "looks like stored values without rescale"),
    ],
)
def test_slices_without_certain_hu_or_geometry_are_refused(tmp_path, changes, words):
    save(ct_slice(np.arange(24).reshape(4, 6), POSITIONS[0], **changes), tmp_path / "a.dcm")
    refused(tmp_path / "a.dcm", words)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom names what it doubts
def test_truncated_file_is_refused_not_skipped(tmp_path):
    """Wherever the last slice breaks off: never a series that is one slice short, never another series."""
    ct_series(tmp_path, POSITIONS)
    last = tmp_path / "004.dcm"
    whole = last.read_bytes()
    for keep in [*range(0, len(whole), 5), len(whole) - 1]:
        last.write_bytes(whole[:keep])
        with pytest.raises(ScanError, match=r"004\.dcm"):
            read_scan(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom names what it doubts
def test_corrupted_bytes_are_refused_or_read_as_they_stand(tmp_path):
    path = save(ct_slice(np.arange(24).reshape(4, 6), POSITIONS[0]), tmp_path / "a.dcm")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    read, said = 0, []
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(132, len(data), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            scan = read_scan(path)
        except ScanError as error:
            said.append(str(error))
            continue
        read += 1
        ds = pydicom.dcmread(path)
        bits = ds.get("BitsStored", 16)
        stored = np.frombuffer(ds.PixelData, "<u2", ds.Rows * ds.Columns).reshape(ds.Rows, ds.Columns) % 2.0**bits
        if ds.get("PixelRepresentation") == 1:
            stored = stored - (stored >= 2 ** (bits - 1)) * 2.0**bits
        expected = stored * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        np.testing.assert_allclose(scan.hu[..., 0], expected.T, rtol=1e-6)
    assert read
    assert said
    assert all(re.fullmatch(f"{re.escape(str(path))}.*", text) for text in said)  # one line, which names the file


def test_file_without_dicom_header_is_named(tmp_path):
    path = save(ct_slice(np.eye(4), POSITIONS[0]), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[132:])
    refused(path, "without the DICM marker")


def test_two_patients_in_one_series_are_refused(tmp_path):
    ct_series(tmp_path, POSITIONS)
    save(ct_slice(np.eye(4, 6), (-10, 20, 112.5), PatientID="P2"), tmp_path / "other.dcm")
    refused(tmp_path, "one patient but got 2 PatientIDs")


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (JPEGLSLossless, "got JPEG-LS Lossless Image Compression; install the decoders: pip install 'ct-cncl[dicom]'"),
        (JPEGExtended12Bit, "got 12-bit JPEG Extended (Process 2 and 4); decompress the file first"),
    ],
)
def test_compression_without_decoder_says_what_to_do(tmp_path, monkeypatch, syntax, words):
    ds = ct_slice(np.eye(4), POSITIONS[0], BitsStored=12, HighBit=11)
    save(ds, tmp_path / "a.dcm")
    ds.PixelData = encapsulate([b"\xff\xd8 no decoder looks at this \xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    monkeypatch.setattr(type(get_decoder(syntax)), "available_plugins", ())
    refused(tmp_path / "a.dcm", words)
