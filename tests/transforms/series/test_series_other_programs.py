"""Derived series as other programs see them: dciodvfy finds no new error; SimpleITK and dcm2niix read what pydicom reads."""

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from derive_files import DONE, datasets, derive
from enhanced_files import valid_enhanced
from series_files import save
from tiny_runs import SHARED

from ct_cncl.transforms.series import read_scan

ORDINARY = ["crlm1004", "kits00072", "built", "enhanced"]
KINDS = ("denoised", "noise", "content", "disagreement", "removed")
MADE = replace(DONE, made=datetime(2026, 1, 2, tzinfo=timezone.utc))


def built_series(folder: Path) -> None:
    """A classic series, complete enough for a validator, cut out of a valid enhanced one."""
    rng = np.random.default_rng(0)
    for k in range(4):
        source = valid_enhanced(np.zeros((1, 64, 48), int), [(0, 0, 0)])
        ds = pydicom.Dataset()
        for name in (
            "SpecificCharacterSet", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
            "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientPosition", "Modality", "Manufacturer",
            "PositionReferenceIndicator", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
        ):  # fmt: skip
            ds[name] = source[name]
        ds.SOPClassUID, ds.SOPInstanceUID = pydicom.uid.CTImageStorage, f"1.2.3.4.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
        ds.ImageType, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = (
            ["ORIGINAL", "PRIMARY", "AXIAL"],
            2,
            k + 1,
            1,
        )
        ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [0.75, 0.5], "2.5", [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient, ds.KVP, ds.BodyPartExamined = [0, 0, 2.5 * k], "120", "ABDOMEN"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        ds.PixelData = rng.integers(0, 2000, (64, 48)).astype("<u2").tobytes()
        save(ds, folder / f"{k}.dcm")


def source_of(name: str, folder: Path) -> Path:
    if name == "built":
        built_series(folder)
        return folder
    if name == "enhanced":
        stored = np.random.default_rng(1).integers(0, 2000, (4, 64, 48))
        save(valid_enhanced(stored, [(0, 0, 2.5 * k) for k in range(4)]), folder / "a.dcm")
        return folder
    path = SHARED / "dicom" / name
    if not path.is_dir():
        pytest.skip("no real CT beside this checkout (../shared/ct)")
    return path


def errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
@pytest.mark.parametrize("compression", ["none", "jpeg2000", "rle"])
@pytest.mark.parametrize("name", ORDINARY)
def test_validator_finds_no_new_error(tmp_path, name, compression):
    if compression == "jpeg2000":
        pytest.importorskip("openjpeg", reason="needs pylibjpeg-openjpeg")
    source = source_of(name, tmp_path / "in")
    made, _, _ = derive(
        source, tmp_path / "w", lambda hu: hu - 1, kinds=KINDS, compression=compression, derivation=MADE
    )
    before = set.union(*(errors(path) for path in sorted(source.iterdir())[:3]))
    for kind in KINDS:
        for path in sorted(made[kind].iterdir())[:2]:
            assert errors(path) <= before
    if name in ("built", "enhanced"):
        assert before == set()


NOT_READ = ("cs_syntax_lossy_1_2_4_51", "enhanced_multiframe_eCT", "truncated_pixeldata_lidc0001")
OTHERS = sorted(
    path.name
    for folder in ("dicom", "dicom_odd")
    for path in (SHARED / folder).glob("*")
    if path.name not in (*ORDINARY, *NOT_READ)
)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
@pytest.mark.parametrize("name", OTHERS)
def test_validator_finds_no_new_error_in_other_scans(tmp_path, name):
    """Sources that break rules themselves: their results break no other ones."""
    pytest.importorskip("openjpeg", reason="needs pylibjpeg-openjpeg")
    folder = next(SHARED / kind / name for kind in ("dicom", "dicom_odd") if (SHARED / kind / name).is_dir())
    made, _, _ = derive(folder, tmp_path / "w", lambda hu: hu - 1, kinds=KINDS, derivation=MADE)
    before = set.union(*(errors(path) for path in sorted(folder.rglob("*")) if path.is_file()))
    for kind in KINDS:
        for path in sorted(made[kind].iterdir())[:2]:
            assert errors(path) <= before


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
def test_the_validator_can_tell(tmp_path):
    """A result without the evidence that PS3.3 asks for is an error: the tests above can fail."""
    made, _, _ = derive(source_of("enhanced", tmp_path / "in"), tmp_path / "w")
    path = next(made["denoised"].iterdir())
    ds = pydicom.dcmread(path)
    del ds.SourceImageEvidenceSequence
    ds.save_as(path)
    assert any("SourceImageEvidenceSequence" in line for line in errors(path))


def changed(hu):
    return hu + np.float32(3)


@pytest.mark.parametrize("name", ORDINARY)
def test_simpleitk_reads_what_was_written(tmp_path, name):
    sitk = pytest.importorskip("SimpleITK", reason="needs SimpleITK")
    source = source_of(name, tmp_path / "in")
    made, _, _ = derive(source, tmp_path / "w", changed)

    def volume(folder):
        files = [str(path) for path in sorted(folder.iterdir())]
        reader = sitk.ImageSeriesReader()
        if len(files) > 1:
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
            return reader.Execute()
        return sitk.ReadImage(files[0])

    before, after = volume(source), volume(made["denoised"])
    for ask in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(after, ask)(), getattr(before, ask)(), atol=1e-6)
    read = read_scan(made["denoised"])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after).transpose(2, 1, 0), read.hu)
    change = read.hu - read_scan(source).hu
    assert set(np.unique(change)) <= {3.0, 0.0}  # 0: padding
    assert (change == 3).mean() > 0.3


@pytest.mark.parametrize("name", ORDINARY)
def test_dcm2niix_reads_what_was_written(tmp_path, name):
    dcm2niix = pytest.importorskip("dcm2niix", reason="needs dcm2niix")
    source = source_of(name, tmp_path / "in")
    made, _, _ = derive(source, tmp_path / "w", changed)
    images = {}
    for label, folder in (("before", source), ("after", made["denoised"])):
        (tmp_path / label).mkdir()
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-m", "y", "-f", "a", "-o", str(tmp_path / label), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert not re.search(r"(?i)error", done.stdout), done.stdout
        images[label] = nib.load(tmp_path / label / "a.nii")
    np.testing.assert_allclose(images["after"].affine, images["before"].affine, atol=1e-4)
    written = read_scan(made["denoised"])
    there = np.linalg.inv(images["after"].affine) @ written.affine  # dcm2niix flips rows
    index = [np.rint(there[k, k] * np.arange(n) + there[k, 3]).astype(int) for k, n in enumerate(written.hu.shape)]
    np.testing.assert_array_equal(images["after"].get_fdata()[np.ix_(*index)], written.hu)


@pytest.mark.parametrize("name", ORDINARY)
def test_pydicom_reads_back_equal(tmp_path, name):
    source = source_of(name, tmp_path / "in")
    made, _, _ = derive(source, tmp_path / "w")
    before, after = read_scan(source), read_scan(made["denoised"])
    np.testing.assert_array_equal(after.hu, before.hu)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert all(ds.pixel_array.size for ds in datasets(made["denoised"]))
