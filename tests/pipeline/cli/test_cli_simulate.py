"""``ct-cncl simulate`` from the command line: what is refused is one line, what works is written."""

import functools
import gzip
import json

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def command(command):
    """Run ``ct-cncl simulate`` in this process; returns (exit code, standard output, standard error)."""
    return functools.partial(command, "simulate")


def scan(path, shape=(40, 40, 2), affine=None, dtype=np.int16):
    hu = np.full(shape, -1000, dtype)
    hu[12:28, 12:28] = 40
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([-4, -4, 5, 1.0]) if affine is None else affine), path)
    return path


def test_a_scan_from_the_command_line(command, tmp_path):
    source = scan(tmp_path / "p1.nii.gz")
    code, out, errors = command(
        source, "--dose", 0.1, "--realizations", 2, "--incident-photons", 1e5, "--out", tmp_path / "low"
    )
    assert code == 0, errors
    assert "p1: 1e+05 photons, calibration: user" in out
    assert "Low-dose scans: 2" in out
    assert sorted(path.name for path in (tmp_path / "low").iterdir()) == [
        "manifest.jsonl",
        "p1_dose0.1_r1.nii.gz",
        "p1_dose0.1_r1.nii.gz.json",
        "p1_dose0.1_r2.nii.gz",
        "p1_dose0.1_r2.nii.gz.json",
    ]
    assert json.loads((tmp_path / "low" / "p1_dose0.1_r2.nii.gz.json").read_text())["settings"]["dose_fraction"] == 0.1
    assert (
        "r2: kept from an earlier run"
        in command(source, "--dose", 0.1, "--realizations", 2, "--incident-photons", 1e5, "--out", tmp_path / "low")[1]
    )


def test_the_scanner_from_the_command_line(command, tmp_path):
    source = scan(tmp_path / "p1.nii.gz")
    scanner = ("--route", "photon_counts", "--bowtie-mm", 200, "--current-modulation", 0.5, "--electronic-variance", 25)
    code, _, errors = command(
        source, "--incident-photons", 1e5, *scanner, "--geometry", "mayo", "--out", tmp_path / "low"
    )
    assert code == 0, errors
    settings = json.loads((tmp_path / "low" / "p1_dose0.25_r1.nii.gz.json").read_text())["settings"]
    assert settings["route"] == "photon_counts"
    assert (settings["bowtie_mm"], settings["current_modulation"], settings["electronic_variance"]) == (
        200.0,
        0.5,
        25.0,
    )
    assert (settings["geometry"], settings["views"]) == ("mayo", 1152)


def bad(folder, kind):
    """A source that must be refused."""
    path = folder / "in" / "p1.nii.gz"
    if kind == "four_d":
        return scan(path, (40, 40, 2, 3))
    if kind == "no_spacing":
        content = bytearray(gzip.decompress(scan(path).read_bytes()))
        content[80:92], content[252:256] = bytes(12), bytes(4)  # pixdim 1 to 3, qform_code and sform_code
        path.write_bytes(gzip.compress(content))
        return path
    path.parent.mkdir()
    if kind == "rgb":
        volume = np.zeros((16, 16, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    elif kind == "nan":
        volume = np.full((16, 16, 2), -100, np.float32)
        volume[3, 4, 1] = np.nan
    else:
        volume = np.random.default_rng(0).integers(0, 2000, (16, 16, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([-4, -4, 5, 1.0])), path)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("four_d", "3-D"),
        ("no_spacing", "voxel spacing"),
        ("rgb", "RGB"),
        ("nan", "NaN"),
        ("not_hu", "look like stored values"),
    ],
)
def test_unusable_scans_are_one_line_and_leave_nothing(command, tmp_path, kind, words):
    code, _, errors = command(bad(tmp_path, kind), "--incident-photons", 1e5, "--out", tmp_path / "out")
    assert code == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert "p1.nii.gz" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dose", ["0", "25", "-0.5", "nan"])
def test_doses_out_of_range_are_one_line(command, tmp_path, dose):
    code, _, errors = command(scan(tmp_path / "a.nii"), f"--dose={dose}", "--out", tmp_path / "out")
    assert code == 1
    assert errors.startswith("error: Expected a dose fraction")
    assert errors.count("\n") == 1


def test_results_in_the_way_and_outputs_that_cannot_be_are_one_line(command, tmp_path):
    source = scan(tmp_path / "a.nii")
    assert command(source, "--incident-photons", 1e5, "--out", tmp_path / "out")[0] == 0
    for out, words in ((tmp_path / "out", "--overwrite"), (tmp_path / "a.nii" / "out", "a.nii")):
        code, _, errors = command(source, "--incident-photons", 2e5, "--out", out)
        assert code == 1
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        assert words in errors


def test_help_has_an_example(command):
    code, text, _ = command("--help")
    assert code == 0
    assert "ct-cncl simulate scan.nii.gz --dose 0.25" in " ".join(text.split())
