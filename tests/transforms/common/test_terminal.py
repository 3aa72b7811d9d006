import io
import sys

import pytest

from ct_cncl.transforms.common.file_names import fitting
from ct_cncl.transforms.common.terminal import say, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ä щ", "plain text, ä щ"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("\u202e\u2066", "\\u202e\\u2066"),
        ("\u2028", "\\u2028"),
    ],
)
def test_what_is_shown(text, expected):
    assert shown(text) == expected


def test_a_terminal_without_the_letters(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    say("one ä", "two \udcff")
    assert stream.buffer.getvalue() == b"one \\xe4\ntwo \\xff\n"


def test_a_terminal_that_is_closed(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    say("x", error=True)


def test_cut_names_stay_two_and_stay_text():
    names = {fitting("ä" * 200 + end, 101) for end in "ab"}
    assert len(names) == 2
    for name in names:
        assert 90 < len(name.encode()) <= 101


def test_no_line_is_no_empty_line(capsys):
    say()
    say("a")
    assert capsys.readouterr().out == "a\n"
