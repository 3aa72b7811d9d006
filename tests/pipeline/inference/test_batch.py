"""Archives: each scan once, whatever is bad among them, whenever a run is stopped, however many processes share the work."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_archive import check_all, manifest, write_archive, write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series import ScanError


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def test_every_series_and_its_manifest(tmp_path, add):
    expected = write_archive(tmp_path / "in", 5)
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm")}
    paths = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert len(paths) == 5
    check_all(tmp_path / "out", expected)
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm")} == before
    line = manifest(tmp_path / "out")[0]
    assert set(line) == {
        "source", "state", "result", "seconds", "network_seconds", "slices", "warnings", "error", "weights", "strength",
        "precision", "version", "clipped_voxels",
    }  # fmt: skip
    assert (line["slices"], line["strength"]) == (3, 1.0)
    assert (tmp_path / "out" / line["result"]["denoised"]).is_dir()


def test_nothing_says_who_the_patients_are(tmp_path, add, capsys):
    write_archive(tmp_path / "in", 2)
    write_series(tmp_path / "in" / "bad", 9, PixelData=b"\0\0")
    with pytest.raises(ScanError):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add)
    captured = capsys.readouterr()
    texts = [captured.out, captured.err, *(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))]
    for secret in ("Zaphod", "Patient0", "Patient1", "1.2.826", "1.2.3."):
        assert not any(secret in text for text in texts)
    assert "found study0/series1" in captured.out


def test_finished_results_are_never_done_again(tmp_path, add):
    write_archive(tmp_path / "in", 3)
    run = {"weights": add, "progress": False}
    first = denoise_scans(tmp_path / "in", tmp_path / "out", **run)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    write_series(tmp_path / "in" / "new", 8)
    shutil.rmtree(first[1])  # one result is gone
    second = denoise_scans(tmp_path / "in", tmp_path / "out", **run)
    new = tmp_path / "out" / "new" / "new_series008_denoised"
    assert sorted(second) == sorted([*first, new])
    written = {p.parent for p in (tmp_path / "out").rglob("*.dcm") if stamps.get(p) != p.stat().st_mtime_ns}
    assert written == {new, first[1]}
    assert len(manifest(tmp_path / "out")) == 4


def test_other_options_and_strangers_results_are_not_overwritten(tmp_path, add):
    write_archive(tmp_path / "in", 2)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    (result,) = (tmp_path / "out" / "study0").rglob("*_denoised")
    before = {path: path.read_bytes() for path in result.iterdir()}
    with pytest.raises(ScanError, match="2 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, strength=0.5, progress=False)
    assert {path: path.read_bytes() for path in result.iterdir()} == before
    errors = [line["error"] for line in manifest(tmp_path / "out") if line["error"]]
    assert len(errors) == 2
    assert all("exists already" in error for error in errors)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, strength=0.0, overwrite=True, progress=False)
    assert {path: path.read_bytes() for path in result.iterdir()} != before
    assert [line["strength"] for line in manifest(tmp_path / "out")] == [0.0, 0.0]


def damage(folder, kind):
    path = folder / "001.dcm"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "no geometry":
        ds = pydicom.dcmread(path)
        del ds.ImagePositionPatient
        ds.save_as(path)
    elif kind == "header":
        path.write_bytes(b"\0" * 128 + b"DICM" + b"rubbish")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["truncated", "no geometry", "header"])
def test_a_bad_series_does_not_stop_the_others(tmp_path, add, kind, capsys):
    expected = write_archive(tmp_path / "in", 4)
    bad = tmp_path / "in" / "study1" / "series2"
    whole = (bad / "001.dcm").read_bytes()
    damage(bad, kind)
    words = "4 scans are denoised, but 1 file cannot be read" if kind == "header" else "4 scans but 1 failed"
    with pytest.raises(ScanError, match=words):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    lines = {line["source"].split("#")[0]: line for line in manifest(tmp_path / "out")}
    failed = {name for name, line in lines.items() if line["error"]}
    assert sum(line["error"] is None for line in lines.values()) == (4 if kind == "header" else 3)
    if (
        kind == "header"
    ):  # it does not say which series it is of: what is left of its neighbours is denoised, and warned about
        assert failed == {"study1/series2/001.dcm"}
        (warning,) = lines["study1/series2/series2_series002"]["warnings"][-1:]
        assert "may hold slices of it" in warning
    else:
        assert failed == {"study1/series2/series2_series002"}
        assert "001.dcm" in lines["study1/series2/series2_series002"]["error"]
    assert "Traceback" not in capsys.readouterr().err
    (bad / "001.dcm").write_bytes(whole)  # mended: the same command does what is left
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, overwrite=kind == "header", progress=False)
    check_all(tmp_path / "out", expected)


def test_strict_refuses_what_otherwise_is_reported(tmp_path, add, capsys):
    write_series(tmp_path / "in" / "a", 1, slices=6)
    (tmp_path / "in" / "a" / "001.dcm").unlink()
    with pytest.raises(ScanError, match="1 missing.*omit --strict"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, strict=True, progress=False)
    (path,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert len(list(path.iterdir())) == 5
    assert "1 missing" in capsys.readouterr().err
    assert "1 missing" in pydicom.dcmread(path / "0001.dcm").DerivationDescription
    assert "1 missing" in manifest(tmp_path / "out")[0]["warnings"][0]


def test_chosen_series_alone(tmp_path, add):
    write_archive(tmp_path / "in", 4)
    paths = denoise_scans(
        tmp_path / "in", tmp_path / "out", weights=add, series=("3", "series1_series001"), progress=False
    )
    assert sorted(path.name for path in paths) == ["series1_series001_denoised", "series3_series003_denoised"]
    assert len(manifest(tmp_path / "out")) == 2


def test_mixed_formats_keep_their_own(tmp_path, add):
    write_series(tmp_path / "in" / "dicom", 1)
    hu = np.random.default_rng(0).integers(-900, 900, (8, 8, 2)).astype(np.int16)
    for name in ("a.nii", "b.nii.gz"):
        nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "in" / name)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert sorted(line["result"]["denoised"] for line in manifest(tmp_path / "out")) == [
        "a_denoised.nii", "b_denoised.nii.gz", "dicom/dicom_series001_denoised",
    ]  # fmt: skip


def test_zip_in_folder_out(tmp_path, add):
    expected = write_archive(tmp_path / "in", 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted((tmp_path / "in").rglob("*.dcm")):
            archive.write(file, file.relative_to(tmp_path / "in"))
    denoise_scans(tmp_path / "a.zip", tmp_path / "out", weights=add, progress=False)
    check_all(tmp_path / "out", expected)
    shutil.rmtree(tmp_path / "in" / "study1")
    (tmp_path / "in" / "study0" / "series1" / "001.dcm").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "in" / "study0" / "series1" / "001.dcm", "001.dcm")
    with pytest.raises(ScanError, match=r"b\.zip/001\.dcm: expected a DICOM file"):
        denoise_scans(tmp_path / "b.zip", tmp_path / "b", weights=add, progress=False)
    assert not (tmp_path / "b").exists()


def test_results_never_lie_among_the_sources(tmp_path, add):
    write_archive(tmp_path / "in", 1)
    for out in (tmp_path / "in", tmp_path / "in" / "out"):
        with pytest.raises(OutputError, match="results outside"):
            denoise_scans(tmp_path / "in", out, weights=add, progress=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="expected to write to|Expected to write to"):
        denoise_scans(tmp_path / "in", tmp_path / "file" / "out", weights=add, progress=False)


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, add, monkeypatch):
    write_archive(tmp_path / "in", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moment", ["write_record", "put_in_place", "add_to_manifest"])
@pytest.mark.parametrize("after", [False, True])
def test_stopped_before_or_after_each_step_of_the_end(tmp_path, add, monkeypatch, moment, after):
    """As if killed: not even finally-blocks that tidy up get their way; the next run ends with all results once."""
    from ct_cncl.pipeline.inference import batch as archive_run

    expected = write_archive(tmp_path / "in", 2)
    own = getattr(archive_run, moment)

    class Killed(BaseException):
        pass

    def stop(*arguments, **options):
        if after:
            own(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archive_run, moment, stop)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    check_all(tmp_path / "out", expected)


def as_rank(monkeypatch, rank, world, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", str(world))
        return denoise_scans(*arguments, progress=False, **options)


def test_ranks_share_the_work_and_a_lost_one_is_made_up_for(tmp_path, add, monkeypatch):
    expected = write_archive(tmp_path / "in", 7)
    shares = [as_rank(monkeypatch, rank, 3, tmp_path / "in", tmp_path / "out", weights=add) for rank in (0, 2)]
    assert [len(share) for share in shares] == [3, 2]
    assert not set(shares[0]) & set(shares[1])
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    again = [as_rank(monkeypatch, rank, 2, tmp_path / "in", tmp_path / "out", weights=add) for rank in (1, 0)]
    assert sorted(again[0] + again[1]) == sorted({*shares[0], *shares[1], *again[0], *again[1]})
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    check_all(tmp_path / "out", expected)


@pytest.mark.slow
def test_killed_at_random_points(tmp_path, add):
    """kill -9 while it runs: three times here; KILLS=10 SEED=5 in the environment for more and others."""
    expected = write_archive(tmp_path / "in", 12)
    kills = int(os.environ.get("KILLS", "3"))
    points = np.random.default_rng(int(os.environ.get("SEED", "0"))).uniform(0.0, 20.0 / kills, kills)
    driver = Path(__file__).with_name("kill_driver.py")
    command = [sys.executable, str(driver), str(tmp_path / "in"), str(tmp_path / "out"), str(add), *map(str, points)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    check_all(tmp_path / "out", expected)


@pytest.mark.slow
def test_torchrun_shares_the_work(tmp_path, add):
    expected = write_archive(tmp_path / "in", 5)
    command = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc_per_node=2", "--standalone"]
    command += [sys.executable, "-c", "from ct_cncl.pipeline.cli import main; main()", "denoise", str(tmp_path / "in")]
    command += ["--out", str(tmp_path / "out"), "--weights", str(add), "--device", "cpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_all(tmp_path / "out", expected)
    assert done.stdout.count("slices/s") == 5


MORTAL = """
import os, signal, time
from ct_cncl.pipeline.inference.batch import ArchiveRun
from ct_cncl.pipeline.cli import main

own, jobs = ArchiveRun._one, []

def one(self, job):
    jobs.append(job)
    if os.environ["RANK"] == "1":
        time.sleep(0.5)  # the other is through its share first
        if len(jobs) == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    own(self, job)

ArchiveRun._one = one
main()
"""


@pytest.mark.slow
def test_a_dying_rank_and_a_bad_series_under_torchrun(tmp_path, add):
    """torchrun starts all anew; then one rank ends with an error, which must not take the other down before it is through."""
    expected = write_archive(tmp_path / "in", 6)
    damage(tmp_path / "in" / "study0" / "series1", "truncated")  # the first, so of rank 0
    command = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc_per_node=2", "--standalone"]
    command += [
        "--max-restarts=1",
        "--monitor-interval=0.1",
        sys.executable,
        "-c",
        MORTAL,
        "denoise",
        str(tmp_path / "in"),
    ]
    command += ["--out", str(tmp_path / "out"), "--weights", str(add), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    state = {line["source"].split("#")[0][-1]: line["state"] for line in manifest(tmp_path / "out")}
    assert state == {"1": "failed"} | dict.fromkeys("23456", "done")
    write_series(tmp_path / "in" / "study0" / "series1", 1)  # mended
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    check_all(tmp_path / "out", expected)


def test_deidentified_archive_names_nobody(tmp_path, add):
    pytest.importorskip("dicomanonymizer", reason="needs dicom-anonymizer")
    write_archive(tmp_path / "Zaphod", 3)
    (tmp_path / "Zaphod" / "study0" / "stray.dcm").write_bytes(b"x")
    with pytest.raises(ScanError, match="3 scans are denoised, but 1 file cannot be read"):
        denoise_scans(tmp_path / "Zaphod", tmp_path / "out", weights=add, deidentify=True, progress=False)
    for path in (tmp_path / "out").rglob("*"):
        assert not any(word in str(path.relative_to(tmp_path / "out")) for word in ("Zaphod", "study", "stray"))
        if path.is_file():
            content = path.read_bytes()
            assert not any(
                word in content for word in (b"Zaphod", b"Patient1", b"study0", b"stray", b"1.2.826.1.", b"1.2.826.2.")
            )
    results = denoise_scans_again(tmp_path, add)
    assert len(results) == 3


def test_problems_of_a_deidentified_series_name_no_file(tmp_path, add, capsys):
    """Regression: a missing slice was reported by its neighbours' file names, in the result's header too."""
    pytest.importorskip("dicomanonymizer", reason="needs dicom-anonymizer")
    for name, change in (("gap", {}), ("copy", {"SOPInstanceUID": "1.2.826.2.1"})):
        write_series(tmp_path / "in" / name, 1 if name == "gap" else 2, slices=5)
        for path in sorted((tmp_path / "in" / name).iterdir()):
            path.rename(path.with_name(f"Zaphod{path.name}"))
        path = tmp_path / "in" / name / "Zaphod002.dcm"
        ds = pydicom.dcmread(path)
        path.unlink()
        for keyword, value in change.items():
            setattr(ds, keyword, value)
            ds.save_as(path)
    with pytest.raises(ScanError, match="1 failed"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, deidentify=True)
    errors = [line["error"] or "" for line in manifest(tmp_path / "out")]
    assert sum("but a file holds a different image" in error for error in errors) == 1
    captured = capsys.readouterr()
    assert "1 missing" in captured.err
    texts = [
        captured.out,
        captured.err,
        *(path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()),
    ]
    assert not any("Zaphod" in text for text in texts)


def denoise_scans_again(tmp_path, add):
    """With the key kept in the folder, the next run knows what is done."""
    (tmp_path / "Zaphod" / "study0" / "stray.dcm").unlink()
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    paths = denoise_scans(tmp_path / "Zaphod", tmp_path / "out", weights=add, deidentify=True, progress=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    return paths
