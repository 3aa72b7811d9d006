"""A result is kept only if neither it nor its source has changed since it was made."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_archive import check_all, manifest, write_archive
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.series import ScanError


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def emptied(folder):
    sorted(folder.iterdir())[1].write_bytes(b"")


def cut(folder):
    file = sorted(folder.iterdir())[1]
    file.write_bytes(file.read_bytes()[:-100])


def deleted(folder):
    sorted(folder.iterdir())[1].unlink()


def all_deleted(folder):
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("harm", [emptied, cut, deleted, all_deleted, shutil.rmtree])
def test_results_of_which_something_is_missing_are_made_again(tmp_path, add, harm):
    expected = write_archive(tmp_path / "in", 2)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    first, second = sorted(path for path in (tmp_path / "out").rglob("*_denoised") if path.is_dir())
    stamps = {path: path.stat().st_mtime_ns for path in second.iterdir()}
    harm(first)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    check_all(tmp_path / "out", expected)
    assert {path: path.stat().st_mtime_ns for path in second.iterdir()} == stamps  # the other is kept


def test_results_that_somebody_changed_are_not_kept_and_not_replaced(tmp_path, add):
    expected = write_archive(tmp_path / "in", 2)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    file = next((tmp_path / "out" / "study0").rglob("*.dcm"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ScanError, match="1 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert file.read_bytes()[-1] == 7
    (error,) = (line["error"] for line in manifest(tmp_path / "out") if line["error"])
    assert "has been changed since" in error
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, overwrite=True, progress=False)
    check_all(tmp_path / "out", expected)


def test_a_source_whose_pixels_changed_is_not_kept(tmp_path, add):
    """Same name, size and date: only reading tells."""
    write_archive(tmp_path / "in", 2)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    file = next((tmp_path / "in" / "study0").rglob("*.dcm"))
    stat = file.stat()
    dataset = pydicom.dcmread(file)
    dataset.PixelData = bytes(reversed(dataset.PixelData))
    dataset.save_as(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    before = {path.name for path in (tmp_path / "out").rglob("*_denoised") if path.is_dir()}
    assert len(denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)) == 2
    (kept,) = (tmp_path / "out").rglob("*_superseded1")  # the result of what the series was
    (line,) = (line for line in manifest(tmp_path / "out") if "supersedes" in line)
    assert line["supersedes"] == {"denoised": kept.name}
    assert {path.name for path in (tmp_path / "out").rglob("*_denoised") if path.is_dir()} == before
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    assert len(denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")} == stamps


def test_a_volume_that_was_only_touched_is_kept_and_one_that_changed_is_not(tmp_path, add):
    hu = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 2)).astype(np.int16)
    path = tmp_path / "in" / "a.nii"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(hu, np.eye(4)), path)
    (result,) = denoise_scans(path, tmp_path / "out", weights=add, progress=False)
    stamp = result.stat().st_mtime_ns
    os.utime(path)
    denoise_scans(path, tmp_path / "out", weights=add, progress=False)
    assert result.stat().st_mtime_ns == stamp
    result.write_bytes(b"")
    denoise_scans(path, tmp_path / "out", weights=add, progress=False)
    assert (np.asanyarray(nib.load(result).dataobj) == hu + 25).all()
    nib.save(nib.Nifti1Image(hu[::-1], np.eye(4)), path)
    with pytest.raises(ScanError, match="exists already"):
        denoise_scans(path, tmp_path / "out", weights=add, progress=False)


@pytest.mark.parametrize("value", [None, 3, "x", [], {"source": 3}, {"results": []}])
def test_a_damaged_record_keeps_nothing(tmp_path, add, value):
    write_archive(tmp_path / "in", 1)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    (record,) = (tmp_path / "out").rglob("*_denoised.json")
    content = json.loads(record.read_text())
    content["digests"] = value if not isinstance(value, dict) else content["digests"] | value
    record.write_text(json.dumps(content))
    with pytest.raises(ScanError, match="exists already|been changed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)


@pytest.mark.timeout(120)
def test_a_pipe_in_place_of_a_result_or_a_manifest_is_replaced_and_never_opened(tmp_path, add):
    hu = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 2)).astype(np.int16)
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "in" / "a.nii")
    (result,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    for path in (result, tmp_path / "out" / "manifest.jsonl"):
        path.unlink()
        os.mkfifo(path)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert (np.asanyarray(nib.load(result).dataobj) == hu + 25).all()
    assert [line["state"] for line in manifest(tmp_path / "out")] == ["done"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["deep", "pipe"])
def test_a_record_that_no_parser_takes_ends_no_archive(tmp_path, add, kind):
    expected = write_archive(tmp_path / "in", 2)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    record = sorted((tmp_path / "out").rglob("*_denoised.json"))[0]
    record.unlink()
    if kind == "pipe":
        os.mkfifo(record)
    else:
        record.write_text("[" * 100_000)
    with pytest.raises(ScanError, match="expected to denoise 2 scans but 1 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert sorted(line["state"] for line in manifest(tmp_path / "out")) == ["done", "failed"]
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, overwrite=True, progress=False)
    check_all(tmp_path / "out", expected)


def test_a_source_that_changes_while_it_is_read_leaves_no_result(tmp_path, add, monkeypatch):
    write_archive(tmp_path / "in", 1)
    from ct_cncl.pipeline.inference import denoising

    def changes(slices, *_):
        for file in (tmp_path / "in").rglob("*.dcm"):
            file.write_bytes(file.read_bytes() + b"\0\0")
        return []

    monkeypatch.setattr(denoising, "scan_warnings", changes)
    with pytest.raises(ScanError, match="expected files that do not change during the run, but they did"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert not list((tmp_path / "out").rglob("*_denoised"))
