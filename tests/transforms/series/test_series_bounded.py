"""Small files that would grow to gigabytes: refused in one line before memory or disk is asked for it."""

import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from series_files import POSITIONS, ct_series

from ct_cncl.transforms.series import ScanError, bounded, find_scans, read_scan
from ct_cncl.transforms.series.find import search
from ct_cncl.transforms.series.volume_file import open_volume


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A series of three slices; bounds are lower, so that tests are small, too."""
    monkeypatch.setattr(bounded, "_SPARE", 1 << 20)
    ct_series(tmp_path / "in", POSITIONS[:3])
    return tmp_path / "in"


def deflated(path, extra):
    """The file deflated, with so many zeros as a private value."""
    ds = pydicom.dcmread(path)
    ds.private_block(0x0019, "X", create=True).add_new(1, "OB", bytes(extra))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_deflated_file_that_grows_is_refused_and_not_inflated(small, monkeypatch):
    path = sorted(small.iterdir())[0]
    deflated(path, 30 << 20)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(pydicom, "dcmread", lambda file, *_, **__: pytest.fail(f"{file} was inflated"))
    with pytest.raises(ScanError, match="would grow beyond") as caught:
        read_scan(path)
    assert path.name in one_line(caught)


def test_a_deflated_file_that_is_one_is_read(small):
    for path in small.iterdir():
        deflated(path, 100_000)
    assert read_scan(small).hu.shape[2] == 3


def test_in_a_folder_it_is_one_broken_file(small):
    deflated(sorted(small.iterdir())[0], 30 << 20)
    found = search(small)
    assert len(found.broken) == 1
    assert "would grow beyond" in str(found.broken[0].error)
    with pytest.raises(ScanError, match="would grow"):
        find_scans(small)


@pytest.mark.parametrize("sides", [(20000, 20000), (65535, 1), (1, 8193)])
def test_slices_that_no_scanner_makes_are_not_decoded(small, sides, monkeypatch):
    for path in small.iterdir():
        ds = pydicom.dcmread(path)
        ds.Rows, ds.Columns = sides
        ds.PixelData = pydicom.encaps.encapsulate([bytes(64)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = RLELossless
        ds.save_as(path)
    with pytest.raises(ScanError, match=f"at most 8192 x 8192 pixels but got {sides[0]} x {sides[1]}") as caught:
        read_scan(small)
    one_line(caught)
    assert len(search(small).broken) == 3


@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_a_packed_volume_that_states_more_than_it_can_hold_writes_nothing(tmp_path, kind):
    (tmp_path / "scratch").mkdir()
    path = tmp_path / f"x.{kind}"
    packed = zlib.compress(bytes(1 << 16)) if kind == "mha" else b"\x1f\x8b" + bytes(100)
    head = {
        "mha": "NDims = 3\nDimSize = 20000 20000 2000\nElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\n",
        "nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: 20000 20000 2000\nencoding: gzip\nendian: little\n\n",
    }[kind]
    path.write_bytes(head.encode() + packed)
    with pytest.raises(ScanError, match=f"x.{kind}.*fewer voxels than its header states"):
        open_volume(kind, path, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_packed_tiff_with_pages_that_no_scanner_makes(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "scratch").mkdir()
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((9000, 16), np.int16), compression="zlib")
    with pytest.raises(ScanError, match=r"x\.tif: expected slices of at most 8192"):
        open_volume("tiff", tmp_path / "x.tif", tmp_path / "scratch")
