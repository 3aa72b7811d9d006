"""Compressed frames of another size than their header states: refused, where decoders cut, fold or shear them without a word."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless
from series_files import ct_slice, refused, save

from ct_cncl.transforms.series import read_scan
from ct_cncl.transforms.series.coded_pixels import check_coded_size

SHAPE = (40, 36)
REFUSED = "that the header states"


def values(shape=SHAPE):
    return np.random.default_rng(1).integers(1, 4000, shape)


def compressed(path, stored, syntax, **changes):
    ds = ct_slice(stored, (0, 0, 0), BitsStored=12, HighBit=11, PixelRepresentation=0)
    ds = pydicom.dcmread(save(ds, path))
    ds.compress(syntax, encapsulate_ext=False, generate_instance_uid=False)
    for name, value in changes.items():
        setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "jpeg2000"])
@pytest.mark.parametrize("shape", [(39, 36), (36, 40), (40, 35), (20, 72)])
def test_another_size_than_stated(tmp_path, syntax, shape):
    """As many pixels in another shape are refused where the coding states its size; run-length coding does not."""
    path = compressed(tmp_path / "a.dcm", values(), syntax, Rows=shape[0], Columns=shape[1])
    if syntax == RLELossless and shape[0] * shape[1] == SHAPE[0] * SHAPE[1]:
        np.testing.assert_array_equal(read_scan(path).hu[..., 0], values().reshape(shape).T - 1024.0)
        return
    refused(path, "where the header states" if syntax == JPEG2000Lossless else REFUSED)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "jpeg2000"])
def test_the_size_that_is_stated(tmp_path, syntax):
    path = compressed(tmp_path / "a.dcm", values(), syntax)
    np.testing.assert_array_equal(read_scan(path).hu[..., 0], values().T - 1024.0)


def test_a_row_of_air_that_is_not_counted_is_not_lost(tmp_path):
    """Its high bytes are 0 throughout."""
    stored = values()
    stored[-1] = 24
    refused(compressed(tmp_path / "a.dcm", stored, RLELossless, Rows=39), REFUSED)


@pytest.mark.filterwarnings("ignore:The decoded RLE segment")  # of pydicom
def test_rows_of_zeros_behind_the_image_fill_it_up(tmp_path):
    stored = values()
    stored[-1] = 0
    path = compressed(tmp_path / "a.dcm", stored, RLELossless, Rows=39)
    np.testing.assert_array_equal(read_scan(path).hu[..., 0], stored[:39].T - 1024.0)


@pytest.mark.parametrize(("name", "suffix"), [("1.2.840.10008.1.2.4.70", "jpg"), ("1.2.840.10008.1.2.4.80", "jls")])
def test_size_of_jpeg_and_jpeg_ls(name, suffix):
    """A frame header behind a comment, as ISO/IEC 10918-1 and 14495-1 have it."""
    start = {"jpg": b"\xff\xc3", "jls": b"\xff\xf7"}[suffix]
    frame = (
        b"\xff\xd8\xff\xfe\x00\x04ab"
        + start
        + b"\x00\x0b\x10"
        + (20).to_bytes(2, "big")
        + (12).to_bytes(2, "big")
        + b"\x01"
    )
    syntax = pydicom.uid.UID(name)
    check_coded_size(frame, syntax, 20, 12)
    with pytest.raises(ValueError, match="20 rows and 12 columns where the header states 12 and 20"):
        check_coded_size(frame, syntax, 12, 20)


def test_a_damaged_frame_is_left_to_its_decoder():
    for frame in (b"", b"\xff\xd8", bytes(64), b"\xff" * 80):
        for name in ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"):
            check_coded_size(frame, pydicom.uid.UID(name), 20, 12)
