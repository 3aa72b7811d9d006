"""Files of other kinds are called what they are, by name and by content, and the message says what to do."""

import bz2
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from series_files import POSITIONS, ct_series, ct_slice, nifti, save

from ct_cncl.transforms.series import ScanError, find_scans, read_scan
from ct_cncl.transforms.series.find import search

AFFINE = np.diag([-0.8, -0.8, 2.0, 1.0])


def volume():
    return np.arange(-60, 60, dtype=np.int16).reshape(5, 4, 6)


def dicom(folder):
    return save(ct_slice(np.arange(12).reshape(3, 4), (0, 0, 0)), folder / "source.dcm").read_bytes()


def tar(content, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        member = tarfile.TarInfo("1.dcm")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 9\n"
KINDS = {
    "a.tar.gz": (lambda content: tar(content, "w:gz"), "an archive; unpack it"),
    "a.tar": (lambda content: tar(content, "w"), "an archive; unpack it"),
    "a": (lambda content: tar(content, "w"), "an archive; unpack it"),
    "a.7z": (lambda _: b"7z\xbc\xaf\x27\x1c", "an archive; unpack it"),
    "a.cab": (lambda _: b"MSCF\0\0\0\0", "an archive; unpack it"),
    "a.nii.zst": (lambda _: b"\x28\xb5\x2f\xfd", "a compressed file; unpack it"),
    "a.dcm.bz2": (bz2.compress, "a compressed file; unpack it"),
    "b": (gzip.compress, "a compressed file; unpack it"),
    "a.iso": (lambda content: bytes(0x8001) + b"CD001\1" + bytes(3000) + content, "a disk image; mount it"),
    "c": (lambda content: bytes(0x8001) + b"CD001\1" + bytes(3000) + content, "a disk image; mount it"),
    "a.mnc": (lambda _: b"CDF\x01", "a volume of another kind; convert it to NIfTI"),
    "a.vtk": (lambda _: b"# vtk DataFile Version 3.0", "a volume of another kind; convert it to NIfTI"),
    "a.bin": (lambda _: b"\x89HDF\r\n\x1a\n", "a volume of another kind; convert it to NIfTI"),
    "a.lfs": (lambda _: POINTER, "a pointer to data that was not fetched; fetch it"),
    "a.nii": (lambda _: POINTER, "a pointer to data that was not fetched; fetch it"),
    "a.nii.gz": (lambda _: POINTER, "a pointer to data that was not fetched; fetch it"),
    "a.dcm": (lambda _: b"/annex/objects/MD5E-s12--aa.dcm\n", "a pointer to data that was not fetched; fetch it"),
    "b.dcm": (lambda _: b"", "an empty file; copy or export it again"),
    "c.nii": (gzip.compress, "a compressed file; unpack it"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind(tmp_path, name):
    make, words = KINDS[name]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(make(dicom(tmp_path)))
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: expected NIfTI or DICOM but got {words}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("a.tar", "unpack archives"), ("a", "unpack archives"), ("b", "unpack compressed files"), ("a.iso", "mount disk images"),
     ("a.mnc", "convert other kinds of volumes to NIfTI"), ("a.lfs", "fetch the data")],
)  # fmt: skip
def test_a_folder_of_them(tmp_path, name, advice):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(KINDS[name][0](dicom(tmp_path)))
    with pytest.raises(ScanError, match=advice):
        find_scans(tmp_path / "in")


def test_pointers_may_stand_for_scans(tmp_path):
    ct_series(tmp_path, POSITIONS[:2])
    (tmp_path / "scan").write_bytes(POINTER)
    assert search(tmp_path).unread == [tmp_path / "scan"]


def test_a_dicomdir_without_its_files_says_to_copy_them(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ScanError, match="only 1 x DICOMDIR .DICOMDIR.; copy the whole medium, not its DICOMDIR alone"):
        find_scans(tmp_path)


@pytest.mark.parametrize("name", ["study", "study.ZIP", "study.dcm", "study.bin"])
def test_a_zip_archive_is_one_whatever_it_is_called(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.write(nifti(tmp_path / "a.nii", volume(), AFFINE), "deep/a.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / name).hu, volume())
