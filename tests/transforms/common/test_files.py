import errno
import subprocess
import sys

import pytest

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing, scratch_folder
from ct_cncl.transforms.common.locks import alone_in


def test_a_finished_block_takes_the_place_of_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "report.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with replacing(str(path)) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["report.txt"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "report.txt"

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device") as caught:
        fail()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="No such file"), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path):
    """Regression: cleaning up raised NotADirectoryError in place of the OutputError."""
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OutputError, match="report.txt"), replacing(tmp_path / "file" / "report.txt"):
        pass
    assert (tmp_path / "file").read_text() == "here first"


def test_a_long_name_is_written(tmp_path):
    """Regression: the temporary name was longer, and too long."""
    with replacing(tmp_path / ("n" * 250)) as temporary:
        temporary.write_text("x")
    assert (tmp_path / ("n" * 250)).read_text() == "x"


def test_a_name_that_is_too_long_is_an_output_error(tmp_path):
    """Regression: cleaning up raised OSError in place of the OutputError."""

    def fail():
        with replacing(tmp_path / ("n" * 260)) as temporary:
            temporary.write_text("x")

    with pytest.raises(OutputError, match="too long"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_goes_and_what_a_killed_run_left_of_it_goes_with_the_next(tmp_path):
    with scratch_folder(tmp_path / "out") as scratch:
        (scratch / "unpacked").mkdir()
        (scratch / "unpacked" / "scan.dcm").write_bytes(b"pixels")
    assert not (tmp_path / "out").exists()
    code = (
        "import os, sys; from pathlib import Path; from ct_cncl.transforms.common.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as scratch:\n (scratch / 'scan.dcm').write_bytes(b'pixels'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "out"], check=False)
    assert len(list((tmp_path / "out").rglob("scan.dcm"))) == 1
    with alone_in(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Expected to write to"), scratch_folder(tmp_path / "file"):
        pass
