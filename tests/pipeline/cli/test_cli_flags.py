"""Options that change what a command does: each as a user types it, and what became of it."""

import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
import typer
from dicom_archive import write_series
from tiny_runs import LOG_LINE, ROOT, TINY, assignments
from tiny_weights import Add, scripted, tiny_cncl

from ct_cncl.pipeline.cli.app import app
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.dataset.patients import hash_patient


def scan(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(sum(name.encode())).integers(-1000, 300, (16, 14, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 5, 1.0])), folder / f"{name}_scan.nii")


def patients(data):
    return {split: {entry["patient"] for entry in entries} for split, entries in read_datalist(data).items()
            if split in ("training", "validation", "test")}  # fmt: skip


def test_prepare_takes_the_test_scans_and_the_salt_that_are_named(command, tmp_path):
    for side, name in (("train", "a"), ("val", "b"), ("held", "c")):
        scan(tmp_path / side, name)
    sides = (tmp_path / "train", "--validation", tmp_path / "val", "--test", tmp_path / "held")
    code, _, errors = command("prepare", *sides, "--salt", "pepper", "--out", tmp_path / "data")
    assert code == 0, errors
    splits = {"training": "a", "validation": "b", "test": "c"}
    assert patients(tmp_path / "data") == {split: {hash_patient(name, "pepper")} for split, name in splits.items()}


def test_prepare_sets_a_share_of_the_patients_apart_for_the_test(command, tmp_path):
    for name in "abcd":
        scan(tmp_path / "in", name)
    shares = ("--validation-fraction", "0.25", "--test-fraction", "0.5")
    code, _, errors = command("prepare", tmp_path / "in", *shares, "--out", tmp_path / "data")
    assert code == 0, errors
    assert {split: len(found) for split, found in patients(tmp_path / "data").items()} == {
        "training": 1, "validation": 1, "test": 2,
    }  # fmt: skip


def test_prepare_pairs_scans_of_other_frames_only_where_that_is_asked_for(command, tmp_path):
    from tiny_dicom import dicom_slice

    for seed, patient in enumerate(["L067", "L096"]):
        hu = np.random.default_rng(seed).integers(0, 1900, (2, 8, 8))
        for dose, code in (("full", "FD"), ("quarter", "QD")):
            folder = tmp_path / "in" / patient / f"{dose}_1mm"
            folder.mkdir(parents=True)
            for k in range(2):
                ds = dicom_slice(hu[k], 3.0 * k, 0.7)
                ds.SeriesInstanceUID, ds.PatientID = f"1.2.{seed}.{len(dose)}", f"{patient}_{code}_1_1"
                ds.FrameOfReferenceUID = f"1.3.{seed}.{len(dose)}"
                ds.save_as(folder / f"{k}.IMA", enforce_file_format=True)
    arguments = ("prepare", tmp_path / "in", "--pairs", "--validation-fraction", "0.5", "--out", tmp_path / "data")
    code, _, errors = command(*arguments)
    assert code != 0
    assert "--across-frames" in errors
    code, _, errors = command(*arguments, "--across-frames")
    assert code == 0, errors
    assert [len(found) for found in patients(tmp_path / "data").values()] == [1, 1, 0]


@pytest.fixture(scope="module")
def plus20(tmp_path_factory):
    return scripted(Add(20.0), tmp_path_factory.mktemp("weights") / "plus20.ts")


def test_denoise_saves_more_previews_and_takes_the_batch_that_is_asked_for(command, tmp_path):
    scan(tmp_path, "a")
    weights, _ = tiny_cncl(tmp_path / "run")
    run = ("denoise", tmp_path / "a_scan.nii", "--weights", weights, "--out", tmp_path / "out", "--device", "cpu")
    code, _, errors = command(
        *run, "--save", "noise", "--batch-size", 1, "--window-preview", tmp_path / "preview.png", "--threads", 1
    )
    assert code == 0, errors
    found = {path.name: nib.load(path).get_fdata() for path in (tmp_path / "out").glob("*.nii")}
    assert set(found) == {"a_scan_denoised.nii", "a_scan_noise.nii"}
    assert found["a_scan_noise.nii"].std() > 0
    assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert command(*run, "--batch-size", 2, "--overwrite")[0] == 0
    together = nib.load(tmp_path / "out" / "a_scan_denoised.nii").get_fdata()
    np.testing.assert_allclose(together, found["a_scan_denoised.nii"], atol=1)
    code, _, errors = command(*run, "--batch-size", 0, "--overwrite")
    assert code != 0
    assert "batch size of at least 1" in errors


def test_denoise_takes_one_series_packs_it_and_takes_the_name_out(command, tmp_path, plus20):
    pytest.importorskip("dicomanonymizer")
    for number in (2, 3):
        write_series(tmp_path / "in" / f"s{number}", number)
    code, _, errors = command(
        "denoise", tmp_path / "in", "--weights", plus20, "--out", tmp_path / "out", "--series", 3, "--compress", "rle", "--deidentify"
    )  # fmt: skip
    assert code == 0, errors
    files = [pydicom.dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert {str(ds.get("PatientName", "")) for ds in files} == {""}
    assert {ds.file_meta.TransferSyntaxUID.name for ds in files} == {"RLE Lossless"}
    assert len(files) == len(list((tmp_path / "in" / "s3").iterdir()))


def test_publish_does_nothing_unless_told(command, tmp_path, described_tiny):
    run = ("publish", described_tiny, "--to", "folder", "--target", tmp_path / "models")
    code, text, _ = command(*run, "--dry-run")
    assert (code, (tmp_path / "models").exists()) == (0, False)
    assert text.startswith("would ")
    assert command(*run)[1] == text  # the default
    assert command(*run, "--no-dry-run")[0] == 0
    assert (tmp_path / "models" / described_tiny.name).is_file()


@pytest.mark.parametrize("flag", ["--report", "--no-report"])
def test_train_writes_the_report_or_does_not(command, tmp_path, tiny_dataset, flag):
    run = assignments(TINY | {"max_epochs": 1})
    code, text, errors = command("train", "--data", tiny_dataset, "--out", tmp_path / "run", flag, *run)
    assert code == 0, errors
    assert text == ""
    assert [line for line in errors.splitlines() if not re.match(LOG_LINE, line)] == []
    assert (tmp_path / "run" / "report.html").is_file() == (flag == "--report")


def test_every_option_of_every_command_is_typed_by_some_test():
    """The whole kind: an option that no test spells may do anything."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    untyped = [
        f"{name} {option.opts[0]}"
        for name, command in typer.main.get_command(app).commands.items()
        for option in command.params
        if option.opts[0].startswith("--")
        if not any(f"{quote}{word}{end}" in text for word in [*option.opts, *option.secondary_opts]
                   for quote in "\"' " for end in "\"'= ")
    ]  # fmt: skip
    assert untyped == []
