"""De-identification: nothing of the patient is left at any depth, references still meet, values are untouched."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from enhanced_files import item, valid_enhanced
from pydicom.dataset import Dataset
from series_files import POSITIONS, ct_series, ct_slice, nifti, save

pytest.importorskip("dicomanonymizer", reason="needs dicom-anonymizer")
from ct_cncl.transforms.series import ScanError, read_scan
from ct_cncl.transforms.series.deidentify import Deidentifier, pseudonym_key

SECRET = "Zaphod"
KEY = b"k" * 32


def nested(ds: Dataset):
    for element in ds:
        yield element
        if element.VR == "SQ":
            for inner in element.value:
                yield from nested(inner)


def series(folder):
    return ct_series(
        folder,
        POSITIONS[:3],
        uid="1.2.3.77",
        PatientName=f"{SECRET}^B",
        PatientID=SECRET,
        PatientBirthDate="19420101",
        StudyInstanceUID="1.2.3.78",
        FrameOfReferenceUID="1.2.3.79",
        StudyDate="20200304",
        AcquisitionDate="20200304",
        InstitutionName=SECRET,
        SeriesDescription=f"for Dr. {SECRET}",
        StudyID=SECRET,
        BodyPartExamined="ABDOMEN",
        RequestAttributesSequence=[item(RequestedProcedureDescription=SECRET)],
        ReferencedImageSequence=[
            item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3.80")
        ],
    )


@pytest.mark.parametrize("keyword", ["KVP", "SliceThickness", "XRayTubeCurrent", "WindowCenter", "InstanceNumber"])
def test_text_in_the_place_of_a_number_goes(tmp_path, keyword):
    series(tmp_path / "in")
    path = sorted((tmp_path / "in").iterdir())[0]
    ds = pydicom.dcmread(path)
    ds.ExposureTime, ds.ReconstructionDiameter = 500, "350.5"
    setattr(ds, keyword, "1234567890")
    ds.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"1234567890", b"Zaphod^B  "))
    clean = Deidentifier(KEY)(pydicom.dcmread(path))
    assert keyword not in clean
    assert (clean.ExposureTime, clean.ReconstructionDiameter) == (500, 350.5)


def test_nothing_of_the_patient_is_left(tmp_path):
    stored = series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        ds = pydicom.dcmread(path)
        ds.private_block(0x0019, "SOMEBODY", create=True).add_new(1, "LO", SECRET)
        ds.ProcedureCodeSequence = [
            item(CodeValue="1", CodingSchemeDesignator="L", CodeMeaning="CT", PatientName=SECRET)
        ]
        ds.add_new(0x60003000, "OW", b"\1\2")
        ds.save_as(path)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", deidentifier=Deidentifier(KEY))
    for path in made["denoised"].iterdir():
        content = path.read_bytes()
        for secret in (SECRET.encode(), b"1.2.3.7", b"20200304", b"19420101"):
            assert secret not in content
    results = datasets(made["denoised"])
    for ds in results:
        assert not any(element.tag.is_private or element.tag.group & 0xFF00 == 0x6000 for element in nested(ds))
        assert (ds.PatientIdentityRemoved, ds.BodyPartExamined) == ("YES", "ABDOMEN")
        assert ds.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert "strength 1" in ds.DerivationDescription
    assert len({ds.PatientID for ds in results} | {ds.StudyInstanceUID for ds in results}) == 2
    np.testing.assert_array_equal(read_scan(made["denoised"]).hu, stored.transpose(2, 1, 0) - 1024)


def test_equal_keys_keep_series_together_and_others_do_not(tmp_path):
    series(tmp_path / "in")
    source = pydicom.dcmread(tmp_path / "in" / "000.dcm")
    first, again, other = (Deidentifier(key)(source) for key in (KEY, KEY, b"x" * 32))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert first[name].value == again[name].value
        assert first[name].value not in (source[name].value, other[name].value)
    reference = first.ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == Deidentifier(KEY).uid("1.2.3.80")
    assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert source.PatientID == SECRET  # the source's data set is not changed


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
def test_enhanced_ct_stays_valid_and_is_clean_in_its_frames(tmp_path):
    save(valid_enhanced(np.ones((2, 8, 6), int), POSITIONS[:2]), tmp_path / "in" / "a.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", deidentifier=Deidentifier(KEY))
    (path,) = made["denoised"].iterdir()
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    assert b"20200102" not in path.read_bytes()


def test_burned_in_names_and_other_formats_are_refused(tmp_path):
    ct_series(tmp_path / "in", POSITIONS[:2], StudyInstanceUID="1.9", BurnedInAnnotation="YES")
    with pytest.raises(ScanError, match="BurnedInAnnotation YES"):
        derive(tmp_path / "in", tmp_path / "w", deidentifier=Deidentifier(KEY))
    path = nifti(tmp_path / "a.nii", np.zeros((3, 3, 2), np.int16), np.eye(4))
    with pytest.raises(ScanError, match="expected DICOM to de-identify"):
        derive(path, tmp_path / "v", deidentifier=Deidentifier(KEY))


def test_the_key_is_made_once_and_for_its_owner(tmp_path):
    key = pseudonym_key(tmp_path / "out")
    assert key == pseudonym_key(tmp_path / "out")
    assert len(key) == 32
    assert (tmp_path / "out" / ".deidentify-key").stat().st_mode & 0o077 == 0
    assert key != pseudonym_key(tmp_path / "other")
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("compression", ["none", "rle", "jpeg2000"])
def test_overlays_in_the_pixels_high_bits_go_with_their_description(tmp_path, signed, compression):
    """A name drawn into bit 15 of the words, and a padding range that would let it pass as padding."""
    if compression == "jpeg2000":
        pytest.importorskip("openjpeg", reason="needs the extra 'dicom'")
    rng = np.random.default_rng(5)
    drawn = rng.random((32, 32)) < 0.5
    stored = rng.integers(0, 2000, (32, 32))
    words = stored.astype("<u2") | (drawn.astype("<u2") << 15)
    ds = ct_slice(stored, POSITIONS[0], signed=signed, StudyInstanceUID="1.9", BitsStored=12, HighBit=11)
    ds.PixelData = words.tobytes()
    ds.add_new(0x60000102, "US", 15)
    save(ds, tmp_path / "in" / "plain.dcm")
    if compression == "none":
        kind = "SS" if signed else "US"
        ds.add_new("PixelPaddingValue", kind, -32768 if signed else 0x8000)
        ds.add_new("PixelPaddingRangeLimit", kind, -1 if signed else 0xFFFF)
        ds.SOPInstanceUID, ds.ImagePositionPatient = "1.2.3.4.5", list(POSITIONS[1])
        save(ds, tmp_path / "in" / "ranged.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", deidentifier=Deidentifier(KEY), compression=compression)
    plain, *ranged = datasets(made["denoised"])
    np.testing.assert_array_equal(plain.pixel_array, stored)
    if compression == "none":
        assert (np.frombuffer(plain.PixelData, "<u2") >> 15 == 0).all()
        np.testing.assert_array_equal(np.frombuffer(plain.PixelData, "<u2").reshape(32, 32), stored)
        outside = np.frombuffer(ranged[0].PixelData, "<u2").reshape(32, 32)
        np.testing.assert_array_equal(outside[~drawn], stored[~drawn])
        assert len(np.unique(outside[drawn])) == 1  # padding, but without the values that were drawn over


def test_a_statement_of_burned_in_names_among_others_is_one(tmp_path):
    ct_series(tmp_path / "in", POSITIONS[:1], StudyInstanceUID="1.9", BurnedInAnnotation=["NO", "YES"])
    with pytest.raises(ScanError, match="BurnedInAnnotation YES"):
        derive(tmp_path / "in", tmp_path / "w", deidentifier=Deidentifier(KEY))


@pytest.mark.filterwarnings("ignore:Failed to decode:UserWarning")
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_text_that_stays_keeps_its_bytes(tmp_path, syntax):
    """A maker's name in Latin-1 in a file that says UTF-8."""
    ds = ct_slice(np.zeros((4, 6), int), POSITIONS[0], StudyInstanceUID="1.9", SpecificCharacterSet="ISO_IR 192")
    ds.Manufacturer = "M_ller & Co"
    path = save(ds, tmp_path / "in" / "a.dcm")
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(b"M_ller", b"M\xfcller"))
    made, _, _ = derive(path.parent, tmp_path / "w", deidentifier=Deidentifier(KEY), compression="rle")
    content = next(made["denoised"].iterdir()).read_bytes()
    assert b"M\xfcller & Co" in content
