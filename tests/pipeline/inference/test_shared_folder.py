"""Several processes with one folder of results: every result and every line of the manifest, and nothing left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_archive import write_archive, write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference import batch
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.common.locks import lock
from ct_cncl.transforms.series import read_scan


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def at_once(add, pairs):
    driver = Path(__file__).with_name("fork_driver.py")
    command = [sys.executable, str(driver), str(add), *(f"{source}={out}" for source, out in pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["done"] * len(pairs), done.stdout + done.stderr


def check(out, expected):
    """By folder name, every result with its own values and its line; nothing else."""
    for name, hu in expected.items():
        (path,) = (path for path in out.rglob(f"{name}_denoised") if path.is_dir())
        np.testing.assert_array_equal(read_scan(path).hu, hu.transpose(2, 1, 0) + 25)
    assert len(list(out.rglob("*_denoised"))) == len(expected)
    lines = manifest(out)
    assert sorted(line["state"] for line in lines) == ["done"] * len(expected)
    assert len({line["source"] for line in lines}) == len(expected)
    assert not (out / ".unfinished").exists()


@pytest.mark.slow
def test_eight_jobs_with_one_out_give_eight_results(tmp_path, add):
    numbers = range(1, 9)
    expected = {f"job{k}_series00{k}": write_series(tmp_path / f"job{k}", k, slices=12, side=64) for k in numbers}
    at_once(add, [(tmp_path / f"job{k}", tmp_path / "out") for k in numbers])
    check(tmp_path / "out", expected)


@pytest.mark.slow
def test_the_same_job_at_once_is_done_once(tmp_path, add):
    expected = {f"series{k}_series00{k}": hu for k, hu in write_archive(tmp_path / "in", 5).items()}
    at_once(add, [(tmp_path / "in", tmp_path / "out")] * 4)
    check(tmp_path / "out", expected)


def test_a_scan_that_another_process_works_on_comes_last(tmp_path, add, monkeypatch):
    """The other process holds the first scan until it sees the last one's result, which waiting would prevent."""
    expected = {f"series{k}_series00{k}": hu for k, hu in write_archive(tmp_path / "in", 3).items()}
    read, write = os.pipe()
    planned = batch.plan

    def plan(*args, **options):
        jobs = planned(*args, **options)
        if os.fork() == 0:
            with lock(jobs[0].lock):
                os.write(write, b"x")
                stop = time.monotonic() + 20
                while not (seen := jobs[2].result.exists()) and time.monotonic() < stop:
                    time.sleep(0.01)
                os.write(write, b"y" if seen else b"n")
            os._exit(0)
        assert os.read(read, 1) == b"x"
        return jobs

    monkeypatch.setattr(batch, "plan", plan)
    paths = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    os.wait()
    assert os.read(read, 1) == b"y"
    assert [path.name.split("_")[0] for path in paths] == ["series1", "series2", "series3"]
    check(tmp_path / "out", expected)


def test_lines_of_other_searches_stay_and_those_of_the_same_are_replaced(tmp_path, add):
    for name, number in (("a", 1), ("b", 2)):
        write_series(tmp_path / name / "scan", number)
        (tmp_path / name / f"{name}.dcm").write_bytes(b"no DICOM")
        with pytest.raises(ValueError, match="1 file cannot be read"):
            denoise_scans(tmp_path / name, tmp_path / "out", weights=add, progress=False)
    assert sorted((line["source"].split("#")[0], line["state"]) for line in manifest(tmp_path / "out")) == [
        ("a.dcm", "failed"), ("b.dcm", "failed"), ("scan/scan_series001", "done"), ("scan/scan_series002", "done"),
    ]  # fmt: skip
    (tmp_path / "a" / "a.dcm").unlink()
    denoise_scans(tmp_path / "a", tmp_path / "out", weights=add, progress=False)
    assert sorted(line["source"].split("#")[0] for line in manifest(tmp_path / "out")) == [
        "b.dcm", "scan/scan_series001", "scan/scan_series002",
    ]  # fmt: skip


def test_half_a_line_of_a_killed_process_does_no_harm(tmp_path, add):
    write_series(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text('{"source": "other", "state": "done"}\n{"source": "in_ser')
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert [line["source"].split("#")[0] for line in manifest(tmp_path / "out")] == ["other", "in_series001"]


def test_what_killed_processes_left_goes_and_what_living_ones_make_stays(tmp_path, add):
    write_series(tmp_path / "in", 1)
    place = tmp_path / "out" / ".unfinished"
    for name in ("1-dead", "2-alive", "0123456789abcdef"):  # the last as 0.1.0 named it
        (place / name).mkdir(parents=True)
        (place / name / "0001.dcm").write_bytes(b"x")
    (place / "1-dead.alive").touch()
    (place / "fedcba9876543210.lock").touch()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with lock(place / "2-alive.alive"):
            os.write(write, b"x")
            time.sleep(100)
    os.read(read, 1)
    try:
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
        assert sorted(path.name for path in place.iterdir()) == ["2-alive", "2-alive.alive"]
        assert (place / "2-alive" / "0001.dcm").exists()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert not place.exists()
