"""Pixels that are not compressed are found where they lie, whatever the transfer syntax says; against DCMTK's rules."""

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1
from series_files import POSITIONS, ct_slice, enhanced, refused, save

from ct_cncl.transforms.series import read_scan

BYTES = np.random.default_rng(3).integers(0, 256, (3, 5, 3))
"""Three frames of an odd number of bytes, so that two of them share a word of 16 bits."""


def as_words(stored: np.ndarray) -> bytes:
    """8-bit pixels as Pixel Data OW in big-endian order: words of 16 bits, the first pixel in the lower byte."""
    data = stored.astype(np.uint8).tobytes()
    data += b"\0" * (len(data) % 2)
    return np.frombuffer(data, "<u2").astype(">u2").tobytes()


def relabelled(path, true, label):
    """Write the file's transfer syntax anew, as a careless program would; the data set stays as it is."""
    content = path.read_bytes()
    old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (true, label))
    at = content.index(b"\2\0\x10\0UI") + 6
    meta = content.index(b"\2\0\0\0UL") + 8
    size = int.from_bytes(content[meta : meta + 4], "little") + len(new) - len(old)
    content = content[:at] + len(new).to_bytes(2, "little") + new + content[at + 2 + len(old) :]
    path.write_bytes(content[:meta] + size.to_bytes(4, "little") + content[meta + 4 :])
    return path


def written(ds, path, syntax):
    save(ds, path)  # the file meta
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def eight_bits(ds, stored, vr):
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    data = stored.astype(np.uint8).tobytes()
    ds.PixelData = as_words(stored) if vr == "OW" else data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = vr
    return ds


@pytest.mark.parametrize("vr", ["OW", "OB"])
@pytest.mark.parametrize("multi_frame", [False, True])
def test_bytes_of_a_big_endian_file_come_in_their_order(tmp_path, vr, multi_frame):
    if multi_frame:
        ds = enhanced(BYTES, POSITIONS[:3])
        ds.StudyInstanceUID = "1.9"
        written(eight_bits(ds, BYTES, vr), tmp_path / "in" / "a.dcm", ExplicitVRBigEndian)
    else:
        for k in range(3):
            ds = ct_slice(BYTES[k], POSITIONS[k], StudyInstanceUID="1.9")
            written(eight_bits(ds, BYTES[k], vr), tmp_path / "in" / f"{k}.dcm", ExplicitVRBigEndian)
    hu = read_scan(tmp_path / "in").hu
    slope = np.array([1, 2, 3] if multi_frame else [1, 1, 1])[:, None, None]
    np.testing.assert_array_equal(hu, (BYTES * slope - (1000 if multi_frame else 1024)).transpose(2, 1, 0))
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    back = np.concatenate([ds.pixel_array.reshape(-1, 5, 3) for ds in datasets(made["denoised"])])
    np.testing.assert_array_equal(back, BYTES)


LABELS = [(ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, ExplicitVRLittleEndian)]


@pytest.mark.filterwarnings("ignore:Expected:UserWarning")
@pytest.mark.parametrize("multi_frame", [False, True])
@pytest.mark.parametrize(("true", "label"), LABELS)
@pytest.mark.parametrize("compression", ["none", "rle"])
def test_a_wrong_label_shifts_no_pixel(tmp_path, true, label, multi_frame, compression):
    stored = np.random.default_rng(1).integers(0, 2000, (3, 4, 6))
    ds = enhanced(stored, POSITIONS[:3]) if multi_frame else ct_slice(stored[0], POSITIONS[0])
    ds.StudyInstanceUID, ds.PatientName = "1.9", "Roe^Anna"
    ds.private_block(0x0019, "SOMEBODY", create=True).add_new(1, "LO", "private")
    relabelled(written(ds, tmp_path / "in" / "a.dcm", true), true, label)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", compression=compression)
    (result,) = datasets(made["denoised"])
    np.testing.assert_array_equal(result.pixel_array, stored if multi_frame else stored[0])
    content = next(made["denoised"].iterdir()).read_bytes()
    assert b"Roe^Anna" in content
    assert b"private " in content


@pytest.mark.parametrize("multi_frame", [False, True])
def test_compressed_pixels_under_a_plain_label_are_refused(tmp_path, multi_frame):
    stored = np.zeros((3, 4, 6), int)
    ds = enhanced(stored, POSITIONS[:3]) if multi_frame else ct_slice(stored[0], POSITIONS[0])
    ds.StudyInstanceUID = "1.9"
    save(ds, tmp_path / "in" / "a.dcm")
    ds.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    relabelled(tmp_path / "in" / "a.dcm", ds.file_meta.TransferSyntaxUID, ExplicitVRLittleEndian)
    refused(tmp_path / "in" / "a.dcm", "compressed pixels although the transfer syntax says uncompressed")
    with pytest.raises(ValueError, match="compressed pixels"):
        derive(tmp_path / "in", tmp_path / "w")


@pytest.mark.parametrize("multi_frame", [False, True])
def test_frames_that_the_header_does_not_count_are_not_dropped(tmp_path, multi_frame):
    stored = np.zeros((3, 4, 6), int)
    ds = enhanced(stored, POSITIONS[:3]) if multi_frame else ct_slice(stored[0], POSITIONS[0])
    ds.StudyInstanceUID = "1.9"
    ds.PixelData = ds.PixelData + stored[0].astype("<i2").tobytes()
    save(ds, tmp_path / "in" / "a.dcm")
    refused(tmp_path / "in" / "a.dcm", "bytes of pixels where the header states")
    with pytest.raises(ValueError, match="bytes of pixels where the header states"):
        derive(tmp_path / "in", tmp_path / "w")


def test_values_in_other_bits_than_the_lowest_are_refused_with_what_to_do(tmp_path):
    path = save(ct_slice(np.zeros((4, 6), int), POSITIONS[0], BitsStored=12, HighBit=15), tmp_path / "a.dcm")
    refused(path, "12 of 16 bits up to bit 15; programs disagree")


SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless (1.2.840.10008.1.2.4.110)",
    "1.2.840.113619.5.2": "a private one (1.2.840.113619.5.2)",
    "1.3.46.670589.33.1.4.1": "a private one",
    "1.2.840.10008.1.2.4.999": "an unknown one",
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_unknown_transfer_syntaxes_are_not_damage(tmp_path, syntax):
    path = save(ct_slice(np.zeros((4, 6), int), POSITIONS[0]), tmp_path / "in" / "a.dcm")
    relabelled(path, ExplicitVRLittleEndian, syntax)
    refused(path, f"but got {SYNTAXES[syntax]}")
    refused(path, "export it as Explicit VR Little Endian")


def test_a_young_transfer_syntax_is_refused_with_the_node_installed(tmp_path):
    """pynetdicom adds JPEG XL to pydicom's list of what it knows: the file's header parses then, its pixels do not."""
    pytest.importorskip("pynetdicom")
    test_unknown_transfer_syntaxes_are_not_damage(tmp_path, "1.2.840.10008.1.2.4.110")


@pytest.mark.parametrize("multi_frame", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_that_states_no_transfer_syntax_is_read_as_it_lies(tmp_path, syntax, multi_frame):
    stored = np.random.default_rng(1).integers(0, 2000, (3, 4, 6))
    ds = enhanced(stored, POSITIONS[:3]) if multi_frame else ct_slice(stored[0], POSITIONS[0])
    ds.StudyInstanceUID = "1.9"
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = (stored if multi_frame else stored[0]).astype(">i2").tobytes()
        ds["PixelData"].VR = "OW"
    path = written(ds, tmp_path / "in" / "a.dcm", syntax)
    content = path.read_bytes()
    at, length = content.index(b"\2\0\x10\0UI"), len(syntax) + len(syntax) % 2
    content = content[:at] + content[at + 8 + length :]
    meta = content.index(b"\2\0\0\0UL") + 8
    size = int.from_bytes(content[meta : meta + 4], "little") - 8 - length
    path.write_bytes(content[:meta] + size.to_bytes(4, "little") + content[meta + 4 :])
    made, _, _ = derive(path.parent, tmp_path / "w")
    np.testing.assert_array_equal(datasets(made["denoised"])[0].pixel_array, stored if multi_frame else stored[0])


def test_pixels_on_a_server_are_said_to_be_there(tmp_path):
    ds = ct_slice(np.zeros((4, 6), int), POSITIONS[0], PixelData=None, PixelDataProviderURL="https://example.invalid")
    path = save(ds, tmp_path / "a.dcm")
    relabelled(path, ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.94")
    refused(path, "the address of a server that has them (JPIP)")


def test_plain_pixels_under_the_label_of_compressed_ones_are_refused(tmp_path):
    path = save(ct_slice(np.zeros((4, 6), int), POSITIONS[0]), tmp_path / "a.dcm")
    relabelled(path, ExplicitVRLittleEndian, JPEGLosslessSV1)
    refused(path, "uncompressed pixels although the transfer syntax says compressed")
