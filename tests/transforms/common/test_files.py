import errno

import pytest

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing


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
