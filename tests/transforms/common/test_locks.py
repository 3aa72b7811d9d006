import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.locks import alone_in, is_locked, locked


def test_others_wait_and_the_file_goes(tmp_path):
    path, order, said = tmp_path / "folder" / "a.lock", [], []

    def other():
        with locked(path, "scan 3", waiting=said.append):
            order.append("second")

    with locked(path, "scan 3"):
        assert is_locked(path)
        thread = threading.Thread(target=other)
        thread.start()
        while not said:
            time.sleep(0.001)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert said == ["waiting for another process: scan 3"]
    assert list(path.parent.iterdir()) == []
    assert not is_locked(path)


def test_many_at_once_are_never_two_inside(tmp_path):
    """The file comes and goes while others wait for it; none of them may hold one that is gone."""
    path, inside, most = tmp_path / "a.lock", [], []

    def work():
        for _ in range(30):
            with locked(path, "work"):
                inside.append(1)
                time.sleep(0.0005)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 240
    assert max(most) == 1
    assert not path.exists()


def test_refused_where_nobody_wants_to_wait(tmp_path):
    with (
        locked(tmp_path / "a.lock", "training"),
        pytest.raises(OutputError, match="to be free for training, but another process"),
        locked(tmp_path / "a.lock", "training", wait=False),
    ):
        pass
    with locked(tmp_path / "a.lock", "training", wait=False):
        pass


def test_a_killed_holder_frees_it(tmp_path):
    path = tmp_path / "a.lock"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with locked(path, "work"):
            os.write(write, b"x")
            time.sleep(60)
    os.read(read, 1)
    assert is_locked(path)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert path.exists()
    assert not is_locked(path)
    with locked(path, "work", wait=False):
        pass
    assert not path.exists()


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Expected to write"), locked(tmp_path / "file" / "a.lock", "work"):
        pass


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
            OutputError, match=rf"Expected {tmp_path}/run for this run alone, but process {holder.pid} is at work"
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
            try:
                with locked(tmp_path / ".run.lock", "work", wait=False):
                    os._exit(1)
            except OutputError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not (tmp_path / ".run.lock").exists()


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "run"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_nobody_is_kept_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with alone_in(tmp_path / "run") as certain:
        assert not certain
