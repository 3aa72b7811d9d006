"""File names that are long, no text, not in the terminal's alphabet, or commands to it: the scans behind them are denoised."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference import batch as archive_run
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.run import simulate_scans
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series import ScanError

NAMES = {
    "long": b"l" * 240 + b".nii",
    "longer": b"L" * 251 + b".nii",
    "longest, of two bytes a letter": "ä".encode() * 125 + b".nii",
    "no text": b"M\xfcller\xff.nii",
    "another alphabet": "щПолина.nii".encode(),
    "a title for the terminal": b"\x1b]0;owned\x07.nii",
    "a line of its own": b"x\nerror: everything failed.nii",
    "from right to left": "a\u202egpj.nii".encode(),
    "plain": b"plain.nii",
}


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def write_all(folder):
    folder.mkdir()
    hu = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.eye(4)), folder / "x.nii")
    content = (folder / "x.nii").read_bytes()
    (folder / "x.nii").unlink()
    for name in NAMES.values():
        try:
            (folder / os.fsdecode(name)).write_bytes(content)
        except OSError as error:
            pytest.skip(f"needs a file system that takes any name: {error}")
    return hu


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text(encoding="ascii").splitlines()]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_an_archive_of_bad_names_is_done_whatever_the_terminal(tmp_path, add, encoding):
    hu = write_all(tmp_path / "in")
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "denoise", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    command += ["--weights", str(add), "--device", "cpu"]
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2000:]
    printed = done.stdout + done.stderr
    assert b"\x1b" not in printed
    assert b"\x07" not in printed
    assert "\u202e".encode() not in printed
    assert not [line for line in printed.splitlines() if line.startswith(b"error")]
    assert len(printed.splitlines()) == 2 * len(NAMES), printed  # "found ..." and what became of it
    lines = manifest(tmp_path / "out")
    assert [line["state"] for line in lines] == ["done"] * len(NAMES)
    results = [tmp_path / "out" / line["result"]["denoised"] for line in lines]
    assert len(set(results)) == len(NAMES)
    for result in results:
        assert (np.asanyarray(nib.load(result).dataobj) == hu + 25).all()
    assert (tmp_path / "out" / "plain_denoised.nii").is_file()
    again = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert again.stdout.count(b"kept from an earlier run") == len(NAMES)


def test_failures_of_bad_names_are_recorded(tmp_path, add):
    """Every one of them is a damaged file: nine failures, nine lines."""
    write_all(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScanError, match="9 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    lines = manifest(tmp_path / "out")
    assert [line["state"] for line in lines] == ["failed"] * len(NAMES)


def test_a_long_folder_of_a_series(tmp_path, add):
    name = "f" * 245
    write_series(tmp_path / "in" / name, 1)
    write_series(tmp_path / "in" / "b", 2)
    assert len(denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)) == 2


@pytest.mark.parametrize("broken", ["write_record", "add_to_manifest", "say"])
def test_nothing_about_one_scan_ends_the_others(tmp_path, add, monkeypatch, broken):
    """Its record cannot be written, or its failure not be said."""
    for number in range(3):
        write_series(tmp_path / "in" / f"s{number}", number)
    own = getattr(archive_run, broken)

    def fails(*arguments, **options):
        text = str(arguments[0].name if broken == "write_record" else arguments[-1])
        if "s1" in text:
            raise OutputError("Expected to write it, but got: File name too long.")
        return own(*arguments, **options)

    if broken == "say":
        monkeypatch.setattr(sys, "stdout", Gone())
        monkeypatch.setattr(sys, "stderr", Gone())
        assert len(denoise_scans(tmp_path / "in", tmp_path / "out", weights=add)) == 3
        return
    monkeypatch.setattr(archive_run, broken, fails)
    with pytest.raises(ScanError, match="1 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    results = sorted(path.parent.name for path in (tmp_path / "out").rglob("*_denoised") if path.is_dir())
    assert {"s0", "s2"} <= set(results)


class Gone:
    """A terminal that was closed."""

    encoding = "ascii"

    def write(self, text):
        raise OSError(5, "Input/output error")

    def flush(self):
        raise OSError(5, "Input/output error")

    def isatty(self):
        return False


def test_a_file_that_vanishes_after_the_search_is_one_failure(tmp_path, add, monkeypatch):
    for number in range(2):
        write_series(tmp_path / "in" / f"s{number}", number)
    own = archive_run.plan

    def vanishing(sources, *arguments, **options):
        sources[0].files[0].unlink()
        return own(sources, *arguments, **options)

    monkeypatch.setattr(archive_run, "plan", vanishing)
    with pytest.raises(ScanError, match="1 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert len(list((tmp_path / "out" / "s1").glob("*_denoised"))) == 1


def test_a_long_name_is_simulated_and_kept(tmp_path, capsys):
    name = "s" * 251 + ".nii"
    hu = np.full((64, 64, 2), -1000, np.int16)
    hu[16:48, 16:48] = 40
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "in" / name)
    options = SimulateOptions(tmp_path / "in", tmp_path / "out", 0.5, incident_photons=1e5)
    (path,) = simulate_scans(options)
    assert path.is_file()
    assert simulate_scans(options) == [path]
    assert "r1: kept from an earlier run" in capsys.readouterr().out
