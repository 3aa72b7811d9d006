import os
import threading
import time

import pytest

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.locks import is_locked, locked


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
