"""What a data set holds is the same after its encoding changed: words by DCMTK's rules, text to the byte."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from enhanced_files import item
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from series_files import POSITIONS, ct_slice, save

WORDS = {
    "OW": np.arange(1, 9, dtype="u2"), "OF": np.linspace(-1, 3, 4, dtype="f4"), "OL": np.arange(4, dtype="u4") + 70000,
    "OD": np.linspace(-1, 3, 4), "OV": np.arange(4, dtype="u8") + 2**40,
}  # fmt: skip
OVERLAY = np.random.default_rng(0).random((4, 8)) < 0.4


def add_words(ds: Dataset, order: str) -> None:
    """Words of every size at the top, in private attributes and within sequences, in the file's byte order."""
    block = ds.private_block(0x0009, "SOMEBODY", create=True)
    inner = Dataset()
    inner_block = inner.private_block(0x0009, "SOMEBODY", create=True)
    for k, (vr, words) in enumerate(WORDS.items()):
        for place in (block, inner_block):
            place.add_new(k, vr, words.astype(words.dtype.newbyteorder(order)).tobytes())
    lut = item(LUTDescriptor=[8, 0, 16])
    lut.add_new(0x00283006, "OW", WORDS["OW"].astype(f"{order}u2").tobytes())
    ds.VOILUTSequence = [lut]
    ds.RequestAttributesSequence = [inner]
    ds.private_block(0x0009, "UNKNOWN", create=True).add_new(1, "UN", b"\1\2\3\4")
    for element, vr, value in (
        (0x10, "US", 4), (0x11, "US", 8), (0x40, "CS", "G"), (0x50, "SS", [1, 1]), (0x100, "US", 1), (0x102, "US", 0),
    ):  # fmt: skip
        ds.add_new(0x60000000 | element, vr, value)
    bits = np.packbits(OVERLAY.ravel(), bitorder="little").view("<u2")
    ds.add_new(0x60003000, "OW", bits.astype(f"{order}u2").tobytes())
    ds.FrameIncrementPointer = 0x00181063


def big_endian(path):
    ds = ct_slice(np.arange(32).reshape(4, 8), POSITIONS[0], StudyInstanceUID="1.9")
    add_words(ds, ">")
    save(ct_slice(np.zeros((4, 8), int), POSITIONS[0]), path)
    ds.file_meta = pydicom.dcmread(path).file_meta
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PixelData = np.arange(32).astype(">i2").tobytes()
    ds["PixelData"].VR = "OW"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def check_words(ds: Dataset) -> None:
    for place in (ds, ds.RequestAttributesSequence[0]):
        for k, words in enumerate(WORDS.values()):
            np.testing.assert_array_equal(np.frombuffer(place[0x00091000 + k].value, words.dtype), words)
    np.testing.assert_array_equal(np.frombuffer(ds.VOILUTSequence[0][0x00283006].value, "<u2"), WORDS["OW"])
    np.testing.assert_array_equal(ds.overlay_array(0x6000), OVERLAY)
    assert ds[0x00091101].value == b"\1\2\3\4"  # UN is little-endian always: PS3.5, 6.2.2
    assert (ds.FrameIncrementPointer, list(ds[0x60000050].value)) == (0x00181063, [1, 1])


@pytest.mark.parametrize("compression", ["none", "rle"])
def test_words_of_a_big_endian_file_keep_their_values(tmp_path, compression):
    big_endian(tmp_path / "in" / "a.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", kinds=("denoised", "noise"), compression=compression)
    for kind in ("denoised", "noise"):
        (result,) = datasets(made[kind])
        if kind == "noise":  # a map has no VOI LUT of its source
            result.VOILUTSequence = [item()]
            result.VOILUTSequence[0].add_new(0x00283006, "OW", WORDS["OW"].tobytes())
        check_words(result)
    np.testing.assert_array_equal(datasets(made["denoised"])[0].pixel_array, np.arange(32).reshape(4, 8))


@pytest.mark.skipif(not shutil.which("dcmconv"), reason="needs dcmconv (DCMTK)")
def test_dcmtk_converts_the_same_way(tmp_path):
    subprocess.run(["dcmconv", "+te", str(big_endian(tmp_path / "a.dcm")), str(tmp_path / "b.dcm")], check=True)
    check_words(pydicom.dcmread(tmp_path / "b.dcm"))


NAME = "Müller^Jörg ".encode("latin-1")


@pytest.mark.filterwarnings("ignore:Failed to decode:UserWarning")
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("compression", ["none", "rle"])
def test_text_that_does_not_decode_is_kept_to_the_byte(tmp_path, syntax, compression):
    """Latin-1 in a file that says UTF-8, at the top and in a sequence: what a clinic's own viewer may well show right."""
    ds = ct_slice(np.zeros((4, 6), int), POSITIONS[0], StudyInstanceUID="1.9", SpecificCharacterSet="ISO_IR 192")
    ds.PatientName, ds.InstitutionName = "M_ller^J_rg", "M_ller^J_rg"
    ds.SeriesDescription = "M_ller^J_rg"
    ds.RequestAttributesSequence = [item(RequestedProcedureDescription="M_ller^J_rg")]
    path = save(ds, tmp_path / "in" / "a.dcm")
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(b"M_ller^J_rg", NAME[:-1]))
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", compression=compression)
    content = next(made["denoised"].iterdir()).read_bytes()
    assert content.count(NAME[:-1]) == 4
    assert "\ufffd".encode() not in content


def test_a_description_of_several_values_stays_one_text(tmp_path):
    ds = ct_slice(np.zeros((4, 6), int), POSITIONS[0], StudyInstanceUID="1.9", SeriesDescription="Thorax 1.0/Lung")
    path = save(ds, tmp_path / "in" / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.0/Lung", b"1.0\\Lung"))
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert datasets(made["denoised"])[0].SeriesDescription == "Thorax 1.0/Lung denoised CNCL"


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS:UserWarning")
@pytest.mark.parametrize("text", ["3A", "3\\4", ""])
def test_a_series_number_that_is_none_refuses_nothing(tmp_path, text):
    path = save(ct_slice(np.zeros((4, 6), int), POSITIONS[0], StudyInstanceUID="1.9"), tmp_path / "in" / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x20\0\x11\0IS")
    value = text.encode() + b" " * (len(text) % 2)
    path.write_bytes(content[: at + 6] + len(value).to_bytes(2, "little") + value + content[at + 10 :])
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert datasets(made["denoised"])[0].SeriesNumber > 10**9  # made from the UID
