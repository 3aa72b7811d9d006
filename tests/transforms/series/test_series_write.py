import errno
import os

import nibabel as nib
import numpy as np
import pytest
from series_files import nifti

from ct_cncl.transforms.series import ScanError, read_scan, write_nifti

PLAIN = np.diag([-0.7, 0.7, 2.5, 1.0])
OBLIQUE = np.array([[0.48, -0.36, 0, -9.5], [0.36, 0.48, 0, 3.25], [0, 0, 2.0, 71], [0, 0, 0, 1]])
SHEARED = np.array([[0.7, 0, 0, 0], [0, 0.7, 0.8, 0], [0, 0, 2.5, 0], [0, 0, 0, 1.0]])


def test_rounds_and_never_truncates(tmp_path, volume):
    scan = read_scan(nifti(tmp_path / "a.nii", volume.astype(np.int16), PLAIN))
    hu = np.full(volume.shape, -0.6, np.float32)
    hu[0] = 1.6
    write_nifti(hu, tmp_path / "b.nii", scan)
    assert np.unique(nib.load(tmp_path / "b.nii").dataobj.get_unscaled()).tolist() == [-1, 2]


def test_clipping_is_counted(tmp_path, volume):
    scan = read_scan(nifti(tmp_path / "a.nii", (volume + 3024).astype(np.uint16), PLAIN, 1, -3024))
    hu = volume.copy()
    hu[1, 1, 1], hu[2, 2, 2] = -4000, 70000
    report = write_nifti(hu, tmp_path / "b.nii", scan)
    back = nib.load(tmp_path / "b.nii").get_fdata()
    assert (report.clipped, report.dtype, report.slope, report.inter) == (2, "uint16", 1, -3024)
    assert (back[1, 1, 1], back[2, 2, 2]) == (-3024, 65535 - 3024)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_ends_of_every_integer_type(tmp_path, dtype):
    hu = np.array([-1e30, 1e30], np.float64).reshape(2, 1, 1)
    report = write_nifti(hu, tmp_path / "b.nii", affine=PLAIN, dtype=dtype)
    stored = nib.load(tmp_path / "b.nii").dataobj.get_unscaled().ravel()
    assert report.clipped == 2
    assert stored[0] == np.iinfo(dtype).min
    assert stored[1] >= np.iinfo(dtype).max * 0.999999


def test_another_dtype_drops_the_scaling(tmp_path, volume):
    scan = read_scan(nifti(tmp_path / "a.nii", (volume + 3024).astype(np.uint16), PLAIN, 1, -3024))
    write_nifti(volume + 0.25, tmp_path / "b.nii", scan, dtype=np.float32)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").get_fdata(), volume + 0.25)


def test_fresh_file_states_affine_and_smallest_type(tmp_path, volume):
    assert write_nifti(volume, tmp_path / "a.nii.gz", affine=OBLIQUE).dtype == "int16"
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_array_equal(image.get_fdata(), volume)
    assert write_nifti(volume * 10, tmp_path / "b.nii.gz", affine=SHEARED).dtype == "int32"
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(back.affine, SHEARED, atol=1e-6)
    assert (back.header["sform_code"], back.header["qform_code"]) == (1, 0)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_full_disk_leaves_nothing(tmp_path, volume, monkeypatch, failing, suffix):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(ScanError, match="No space left on device; nothing was left behind"):
        write_nifti(volume, tmp_path / f"out{suffix}", affine=PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing_and_old_file_stays(tmp_path, volume, monkeypatch):
    (tmp_path / "out.nii").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_nifti(volume, tmp_path / "out.nii", affine=PLAIN, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.nii"]
    assert (tmp_path / "out.nii").read_bytes() == b"old"


def test_output_folder_that_is_a_file(tmp_path, volume):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ScanError, match="expected to write the output"):
        write_nifti(volume, tmp_path / "file" / "out.nii", affine=PLAIN)


def test_existing_files_and_the_source_are_kept(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", volume.astype(np.int16), PLAIN)
    scan = read_scan(path)
    write_nifti(scan.hu, tmp_path / "b.nii", scan)
    with pytest.raises(ScanError, match="already exists"):
        write_nifti(scan.hu, tmp_path / "b.nii", scan)
    write_nifti(scan.hu + 1, tmp_path / "b.nii", scan, overwrite=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "b.nii").hu, volume + 1)
    before = path.read_bytes()
    with pytest.raises(ScanError, match="is the input file itself"):
        write_nifti(scan.hu + 1, path, scan, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu[1:], r"shape \(5, 4, 3\) to write but got \(4, 4, 3\)"),
        (lambda hu: hu * np.nan, "60 NaN"),
    ],
)
def test_wrong_volumes_are_not_written(tmp_path, volume, change, words):
    scan = read_scan(nifti(tmp_path / "a.nii", volume.astype(np.int16), PLAIN))
    with pytest.raises(ScanError, match=words):
        write_nifti(change(scan.hu), tmp_path / "b.nii", scan)
    assert not (tmp_path / "b.nii").exists()
