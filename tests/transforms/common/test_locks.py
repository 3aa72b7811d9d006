import os
import signal
import subprocess
import sys
import time

import pytest

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.locks import alone_in, lock

HOLD = """
import sys, time
from ct_cncl.transforms.common.locks import alone_in
with alone_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_is_named(tmp_path, holder):
    with (
        pytest.raises(
            OutputError,
            match=rf"Expected {tmp_path}/run for this run alone, but process {holder.pid} is already running",
        ),
        alone_in(tmp_path / "run"),
    ):
        pass
    with alone_in(tmp_path / "other"):
        pass


def test_after_kill_9_the_folder_is_free(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".run.lock").exists()
    with alone_in(tmp_path / "run"):
        assert (tmp_path / ".run.lock").read_text().split()[0] == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_run_within_a_run_and_children(tmp_path):
    with alone_in(tmp_path / "run"):
        with alone_in(tmp_path / "run") as certain:
            assert certain
        assert (tmp_path / ".run.lock").exists()
        pid = os.fork()
        if pid == 0:
            with lock(tmp_path / ".run.lock") as mine:
                os._exit(int(mine))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not (tmp_path / ".run.lock").exists()


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "run"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_other_is_done(tmp_path, holder):
    began = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
    with lock(tmp_path / ".run.lock", wait=True) as mine:
        assert mine
    assert time.monotonic() - began > 0.2


def test_where_no_lock_can_be_nobody_is_kept_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with alone_in(tmp_path / "run") as certain:
        assert not certain


def test_many_processes_one_at_a_time(tmp_path):
    """Each adds one to a number, reading and writing it apart."""
    code = (
        "import sys, time; from pathlib import Path; from ct_cncl.transforms.common.locks import lock\n"
        "path = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with lock(path.with_name('l'), wait=True) as mine:\n"
        "        assert mine\n"
        "        number = int(path.read_text()); time.sleep(0.001); path.write_text(str(number + 1))\n"
    )
    (tmp_path / "n").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "n")]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert (tmp_path / "n").read_text() == "80"


def test_what_a_killed_run_was_writing_goes_and_nothing_that_others_hold(tmp_path, holder):
    (tmp_path / "run").mkdir()
    mine, theirs, strange = (
        tmp_path / ".best.pt.0123abcd.part",
        tmp_path / "run" / ".last.pt.0123abcd.part",
        tmp_path / ".a.part",
    )
    stale = tmp_path / "sub" / ".other.lock"
    stale.parent.mkdir()
    (tmp_path / "sub" / "other").mkdir()
    for path in (mine, theirs, strange, stale):
        path.write_text("half")
    with alone_in(tmp_path):
        assert not mine.exists()
        assert not stale.exists()
        assert theirs.exists()
        assert strange.exists()
        mine.write_text("half")
        with alone_in(tmp_path):
            assert mine.exists()  # this run's own
