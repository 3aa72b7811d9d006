import pytest

from ct_cncl.pipeline.common.csv_files import csv_text, read_csv, write_csv
from ct_cncl.transforms.common.errors import OutputError

ROWS = [["name", "dB", "note"], ["a, b", 0.1 + 0.2, 'of "c"'], ["d", None, "two\nlines"]]


def test_what_is_written_is_read_back(tmp_path):
    write_csv(tmp_path / "new" / "table.csv", ROWS)
    assert (tmp_path / "new" / "table.csv").read_bytes() == csv_text(ROWS).encode()
    assert read_csv(tmp_path / "new" / "table.csv") == [
        {"name": "a, b", "dB": "0.30000000000000004", "note": 'of "c"'},
        {"name": "d", "dB": "", "note": "two\nlines"},
    ]


def test_lines_end_in_a_line_feed_alone():
    assert csv_text([[1, 2], [3, 4]]) == "1,2\n3,4\n"


def test_no_file_has_no_rows(tmp_path):
    assert read_csv(tmp_path / "none.csv") == []


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(OutputError, match=r"table\.csv"):
        write_csv(tmp_path / "table.csv", ROWS)
