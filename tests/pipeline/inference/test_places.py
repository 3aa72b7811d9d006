"""Where results go: a file for one volume, records apart from DICOM, a new result beside the one that it supersedes."""

import json
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted
from typer.testing import CliRunner

from ct_cncl.pipeline.cli.app import app
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series import ScanError, read_scan

HU = np.random.default_rng(0).integers(-1000, 1000, (8, 7, 3)).astype(np.int16)


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def volume(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(HU, np.diag([-1, -1, 2, 1])), path)
    return path


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("source", ["in.nii", "in.nii.gz"])
@pytest.mark.parametrize("target", ["denoised.nii", "new/denoised.nii.gz"])
def test_one_volume_into_a_file(tmp_path, add, source, target):
    path, out = volume(tmp_path / "a" / source), tmp_path / "b" / target
    assert denoise_scans(path, out, weights=add, save=("removed",), progress=False) == [out]
    assert out.read_bytes()[:2] == (b"\x1f\x8b" if target.endswith("gz") else out.read_bytes()[:2])
    np.testing.assert_array_equal(np.asanyarray(nib.load(out).dataobj), HU + 25)
    suffix = out.name.removeprefix("denoised")
    removed = out.with_name(f"denoised_removed{suffix}")
    np.testing.assert_array_equal(nib.load(removed).get_fdata(), -25)
    assert files(out.parent) == sorted([out.name, removed.name, f"{out.name}.json"])
    stamp = out.stat().st_mtime_ns
    denoise_scans(path, out, weights=add, save=("removed",), progress=False)
    assert out.stat().st_mtime_ns == stamp  # kept from an earlier run
    with pytest.raises(ScanError, match="--overwrite"):
        denoise_scans(path, out, weights=add, strength=0.5, progress=False)
    with pytest.raises(ScanError, match=r"got only 1 x result of ct-cncl \(denoised\)"):
        denoise_scans(out, tmp_path / "c", weights=add, progress=False)


def test_the_only_volume_of_a_folder_and_one_dicom_file(tmp_path, add):
    volume(tmp_path / "in" / "a.nii.gz")
    denoise_scans(tmp_path / "in", tmp_path / "out.nii.gz", weights=add, progress=False)
    assert (tmp_path / "out.nii.gz").is_file()
    hu = write_series(tmp_path / "dicom", 1, slices=1)
    denoise_scans(tmp_path / "dicom" / "000.dcm", tmp_path / "one.dcm", weights=add, progress=False)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "one.dcm").pixel_array, hu[0] + 25)


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("a.nii", "out.mha", r"expected .nii or .nii.gz but got another name"),
        ("dicom", "out.nii.gz", "a folder for 3 DICOM files"),
        ("dicom", "out.dcm", "a folder for 3 DICOM files"),
        (".", "out.nii", "one scan to write into a file but got 2"),
        ("a.nii", "a.nii", "is the input file itself"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_does_not_fit_into_a_file(tmp_path, add, source, out, words, overwrite):
    before = volume(tmp_path / "in" / "a.nii").read_bytes()
    write_series(tmp_path / "in" / "dicom", 1)
    place = tmp_path / ("in" if out == source else "x") / out
    with pytest.raises(ScanError, match=words):
        denoise_scans(tmp_path / "in" / source, place, weights=add, overwrite=overwrite, progress=False)
    assert (tmp_path / "in" / "a.nii").read_bytes() == before
    assert not (tmp_path / "x").exists()


def test_a_file_among_the_sources_and_a_folder_of_that_name(tmp_path, add):
    volume(tmp_path / "in" / "a.nii")
    with pytest.raises(OutputError, match="results outside"):
        denoise_scans(tmp_path / "in", tmp_path / "in" / "out.nii", weights=add, progress=False)
    (tmp_path / "out.nii").mkdir()
    denoise_scans(tmp_path / "in", tmp_path / "out.nii", weights=add, progress=False)
    assert (tmp_path / "out.nii" / "a_denoised.nii").is_file()


def test_in_and_out_by_place(tmp_path, add):
    source = volume(tmp_path / "a.nii.gz")
    options = ["--weights", str(add), "--device", "cpu"]
    run = CliRunner().invoke(app, ["denoise", str(source), str(tmp_path / "b.nii.gz"), *options])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "b.nii.gz").is_file()
    for places in ([], [str(tmp_path / "c"), "--out", str(tmp_path / "d")]):
        run = CliRunner().invoke(app, ["denoise", str(source), *places, *options])
        assert run.exit_code == 2
        assert "as DST or as --out" in " ".join(run.output.replace("│", " ").split())


@pytest.mark.parametrize("deidentify", [False, True])
def test_records_apart_leave_nothing_but_dicom(tmp_path, add, deidentify):
    """So that `storescu +sd +r OUT`, which stops at what is no DICOM, sends it all."""
    if deidentify:
        pytest.importorskip("dicomanonymizer")
    for number in (1, 2):
        write_series(tmp_path / "in" / f"study{number}" / "scan", number)
    options = {"weights": add, "manifest": tmp_path / "records", "deidentify": deidentify, "progress": False}
    denoise_scans(tmp_path / "in", tmp_path / "out", **options)
    assert len(files(tmp_path / "out")) == 6
    assert all(name.endswith(".dcm") for name in files(tmp_path / "out"))
    assert [line["state"] for line in manifest(tmp_path / "records")] == ["done", "done"]
    assert sum(name.endswith("_denoised.json") for name in files(tmp_path / "records")) == 2
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    denoise_scans(tmp_path / "in", tmp_path / "out", **options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")} == stamps


def uids(folder):
    return {str(pydicom.dcmread(path).SeriesInstanceUID) for path in folder.iterdir()}


def corrected(folder):
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        ds.PatientName = "Zaphod^Beeblebrix"
        ds.save_as(path)


def grown(folder):
    write_series(folder, 1, slices=9)


@pytest.mark.parametrize("change", [grown, corrected])
@pytest.mark.parametrize("save", [(), ("removed",)])
def test_a_series_that_changes_gets_a_new_result_and_keeps_the_old(tmp_path, add, change, save, capsys):
    """Router and scanner work side by side: six slices are there at first, nine in the end."""
    write_series(tmp_path / "in", 1, slices=9)
    for path in sorted((tmp_path / "in").iterdir())[6:]:
        path.unlink()
    (first,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, save=save, progress=False)
    old, old_uids = {path.name: path.read_bytes() for path in first.iterdir()}, uids(first)
    change(tmp_path / "in")
    capsys.readouterr()
    (again,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, save=save)
    assert again == first
    assert len(list(again.iterdir())) == (9 if change is grown else 6)
    kept = first.with_name(f"{first.name}_superseded1")
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == old
    assert uids(kept) == old_uids
    assert not uids(again) & old_uids
    assert f"the earlier result is now called {kept.name}" in capsys.readouterr().out
    (line,) = manifest(tmp_path / "out")
    assert line["supersedes"]["denoised"] == kept.name
    assert set(line["supersedes"]) == {"denoised", *save}
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, save=save)
    assert "kept from an earlier run" in capsys.readouterr().out
    assert not first.with_name(f"{first.name}_superseded2").exists()


def test_superseding_goes_on_where_it_was_killed(tmp_path, add, monkeypatch):
    from ct_cncl.pipeline.inference import batch

    write_series(tmp_path / "in", 1, slices=4)
    (first,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    old = {path.name: path.read_bytes() for path in first.iterdir()}
    write_series(tmp_path / "in", 1, slices=5)
    for moment in ("set_aside", "put_in_place", "add_to_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(batch, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    (again,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert len(list(again.iterdir())) == 5
    (kept,) = (tmp_path / "out").glob("*_superseded*")
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == old


def test_another_series_of_that_name_is_refused_and_overwrite_replaces(tmp_path, add):
    write_series(tmp_path / "in", 1)
    (first,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    shutil.rmtree(tmp_path / "in")
    write_series(tmp_path / "in", 1, uid="1.2.3.4.5")
    with pytest.raises(ScanError, match="from another source"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, overwrite=True, progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == [first.name]


def test_what_another_version_made_is_kept_and_named_or_made_again(tmp_path, add, monkeypatch, capsys):
    from ct_cncl.pipeline.inference import batch, records

    write_series(tmp_path / "in", 1)
    (first,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    before = uids(first)
    for module in (batch, records):
        monkeypatch.setattr(module, "__version__", "9.9")
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add)
    assert "kept from an earlier run (made by version" in capsys.readouterr().out
    assert uids(first) == before
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, overwrite=True, progress=False)
    assert not uids(first) & before


def test_results_of_zips_are_called_after_them(tmp_path, add):
    for name, number in (("PAT_A", 1), ("PAT_B", 2)):
        hu = write_series(tmp_path / name, number)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path in (tmp_path / name).iterdir():
                archive.write(path, path.name)
        (result,) = denoise_scans(tmp_path / f"{name}.zip", tmp_path / "out", weights=add, progress=False)
        assert result.name == f"{name}_series00{number}_denoised"
        np.testing.assert_array_equal(read_scan(result).hu, hu.transpose(2, 1, 0) + 25)
    assert not (tmp_path / "out" / ".unfinished").exists()
    assert len(manifest(tmp_path / "out")) == 2
