"""Real small disks: one line and no half result, whatever the format; nobody is killed by a signal."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from small_disk import small_disk
from tiny_weights import Add, scripted

FORMATS = ("nii", "mha", "nrrd", "npy", "tif")


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def volume(path, slices):
    """HU of so many slices of 64 x 64, 8 KiB each."""
    hu = np.random.default_rng(0).integers(-1000, 1000, (slices, 64, 64)).astype(np.int16)
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".nii":
        nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), np.eye(4)), path)
    elif path.suffix == ".npy":
        np.save(path, hu)
    elif path.suffix == ".tif":
        pytest.importorskip("tifffile").imwrite(path, hu)
    else:
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(path))
    return path


def denoised(source, out, weights):
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "denoise",
        str(source),
        "--out",
        str(out),
        "--weights",
        str(weights),
        "--device",
        "cpu",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


EACH = """
import sys
from pathlib import Path
from ct_cncl.pipeline.inference.api import denoise_scans
for source in sorted(Path(sys.argv[1]).iterdir()):
    try:
        denoise_scans(source, Path(sys.argv[2]), weights=sys.argv[3], device="cpu", progress=False)
    except OSError as error:
        print(source.suffix, error)
"""


def test_volumes_that_do_not_fit_are_one_line_each(tmp_path, add):
    """In a process of their own: a signal would end it."""
    for suffix in FORMATS:
        volume(tmp_path / "in" / f"a.{suffix}", 400)
    with small_disk(tmp_path / "disk", "2m") as disk:
        command = [sys.executable, "-c", EACH, str(tmp_path / "in"), str(disk / "out"), str(add)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert sorted(line.split()[0] for line in lines) == sorted(f".{suffix}" for suffix in FORMATS)
        assert all("Expected 3.1 MiB of free space in" in line for line in lines), lines
        assert all("No space left on device" in line for line in lines)
        assert not [path for path in disk.rglob("*") if path.is_file()]


def test_the_others_of_an_archive_are_done_and_the_failure_is_recorded(tmp_path, add):
    volume(tmp_path / "in" / "a.nii", 400), volume(tmp_path / "in" / "b.nii", 10)
    with small_disk(tmp_path / "disk", "2m") as disk:
        done = denoised(tmp_path / "in", disk / "out", add)
        assert done.returncode == 1, done.stderr
        assert "b: 10 slices" in done.stdout
        assert (disk / "out" / "b_denoised.nii").is_file()
        manifest = (disk / "out" / "manifest.jsonl").read_text()
        assert "free space" in manifest
        assert not (disk / "out" / "a_denoised.nii").exists()
