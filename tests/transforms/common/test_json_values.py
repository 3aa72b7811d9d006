"""JSON files that anybody may have written."""

import os

import pytest

from ct_cncl.transforms.common.json_values import parsed_json, read_json


def test_values_come_as_they_are(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_what_is_nested_too_deeply_is_a_value_error(text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed_json(text)


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
