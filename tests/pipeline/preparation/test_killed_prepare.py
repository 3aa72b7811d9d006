"""What a run that is stopped or killed leaves: nothing, or what the next run into that folder takes away."""

import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.transforms.dataset.datalist import DATALIST
from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
from ct_cncl.transforms.dataset.writer import write_dataset

CODE = "from ct_cncl.pipeline.cli import main; main()"


def begun(out):
    """A run of ``ct-cncl prepare`` that has written its first volume."""
    scans = out.parent.with_name(f"{out.parent.name}_scans")
    hu = np.full((64, 64, 4), -1000, np.int16)
    hu[12:52, 12:52] = 40
    for number in range(60):
        scans.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(hu, np.diag([4.0, 4.0, 5.0, 1.0])), scans / f"p{number}.nii")
    command = [sys.executable, "-c", CODE, "prepare", str(scans), "--incident-photons", "1e5", "--out", str(out)]
    hears = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731  tests may run under nohup
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears)  # noqa: PLW1509
    while process.poll() is None and not list(out.parent.glob(f".{out.name}.*.part/*/*.nii")):
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    return process


def write(folder, value=0.0, **options):
    volume = np.full((8, 8, 1), value, np.float32)
    cases = {"training": [Case("p", "s", 0.25, lambda: Pair(volume, volume, np.eye(4), {}))]}
    write_dataset(folder, cases, salt="x", **options)


def test_a_run_that_is_told_to_end_tidies_up(tmp_path):
    process = begun(tmp_path / "data")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_is_tidied_up_by_the_next_and_nothing_else_is(tmp_path):
    process = begun(tmp_path / "data")
    (left,) = tmp_path.glob(".data.*.part")
    try:
        with pytest.raises(OSError, match=f"process {process.pid} is already running"):
            write(tmp_path / "data")
        assert left.is_dir()
    finally:
        process.kill()
        process.wait()
    strangers = [
        tmp_path / name
        for name in (".data.notes.part", ".other.0123abcd.part", "data.0123abcd.part", ".data.0123abcd.tmp")
    ]
    for path in strangers:
        path.mkdir()
    (tmp_path / ".data.89abcdef.part").write_text("a file")
    write(tmp_path / "data")
    assert not left.exists()
    assert all(path.is_dir() for path in strangers)
    assert (tmp_path / ".data.89abcdef.part").read_text() == "a file"
    assert (tmp_path / "data" / DATALIST).is_file()
    assert not (tmp_path / ".data.lock").exists()


def test_a_data_set_that_was_about_to_be_replaced_comes_back(tmp_path):
    """Killed between the two renames: the old one has a hidden name, the new one is not there yet."""
    write(tmp_path / "data", 1.0)
    before = (tmp_path / "data" / DATALIST).read_bytes()
    (tmp_path / "data").rename(tmp_path / ".data.0123abcd.old")
    (tmp_path / ".data.0123abcd.part").mkdir()
    with pytest.raises(ValueError, match="contains a data set"):
        write(tmp_path / "data", 2.0)
    assert (tmp_path / "data" / DATALIST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_closed_terminal_ends_a_run_alike_but_not_under_nohup():
    script = (
        "import os, signal; from ct_cncl.pipeline.cli import app as module\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); module._stop_as_ctrl_c()\n"
        "assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); module._stop_as_ctrl_c()\n"
        "pid = os.fork()\n"
        "if pid == 0: os.kill(os.getpid(), signal.SIGTERM); os._exit(1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143  # a worker ends at once\n"
        "try: os.kill(os.getpid(), signal.SIGHUP)\n"
        "except KeyboardInterrupt: print('as Ctrl-C')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "as Ctrl-C\n", done.stderr
