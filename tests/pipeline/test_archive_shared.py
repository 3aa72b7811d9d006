"""Independent runs into one folder: each scan is done once, all runs succeed, whoever is killed."""

import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from dicom_archive import write_archive
from test_archive import check_all
from tiny_weights import Add, scripted

from ct_cncl.pipeline import archive
from ct_cncl.pipeline.inference import denoise_scans

RUN = """
import os, sys, time
from pathlib import Path
from ct_cncl.pipeline.archive_run import ArchiveRun
from ct_cncl.pipeline.inference import denoise_scans
source, out, weights = map(Path, sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
denoise_scans(source, out, weights=weights, device="cpu")
"""


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def started(tmp_path, add, count):
    """So many processes that begin at once."""
    command = [sys.executable, "-c", RUN, str(tmp_path / "in"), str(tmp_path / "out"), str(add)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) for _ in range(count)]
    for process in running:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    return running


def test_independent_runs_share_the_work(tmp_path, add):
    expected = write_archive(tmp_path / "in", 10)
    running = started(tmp_path, add, 3)
    said = [process.communicate("\n", timeout=120) if number == 2 else process.stdin.write("\n") or process.stdin.flush()
            for number, process in enumerate(running)][2:]  # fmt: skip
    said += [process.communicate(timeout=120) for process in running[:2]]
    assert [process.returncode for process in running] == [0, 0, 0], said
    printed = "".join(out for out, _ in said)
    assert printed.count("slices/s") == 10  # each once
    assert printed.count("kept from before") == 20
    check_all(tmp_path / "out", expected)


def test_a_killed_run_is_no_hindrance_and_what_another_is_at_stays(tmp_path, add):
    expected = write_archive(tmp_path / "in", 3)
    (process,) = started(tmp_path, add, 1)
    work = tmp_path / "out" / archive.WORK
    process.stdin.write("\n")
    process.stdin.flush()
    while process.poll() is None and not list(work.glob("*.lock")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    work.mkdir(parents=True, exist_ok=True)
    host = archive.own_name().rpartition("-")[0]
    living = work / f"manifest-{host}-{os.getppid()}.jsonl"
    living.write_text("of a run that is at work")
    (work / f"unzipped-{host}-{process.pid}").mkdir()
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert list(work.iterdir()) == [living]
    living.unlink()
    work.rmdir()
    check_all(tmp_path / "out", expected)


def test_scans_of_one_name_and_size_have_work_of_their_own(tmp_path, add):
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        hu = np.full((8, 8, 2), ord(folder) - 500, np.int16)
        nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "in" / folder / "scan.nii")
    results = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert [int(np.asanyarray(nib.load(path).dataobj)[0, 0, 0]) for path in results] == [-403 + 25, -402 + 25]
    requests = {archive.read_record(path.with_name(f"{path.name}.json"))["request"] for path in results}
    assert len(requests) == 2
