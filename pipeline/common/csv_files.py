"""The only CSV writer: lines end in a line feed, None is an empty cell, numbers keep all digits."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.files import replacing

_FORMULA = re.compile("[\t\r]|[\\s\u200b\u2060\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20]")
"""How a formula may begin: some programs drop blanks and characters without width before they look."""


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    r"""Rows as CSV, the header among them.

    >>> csv_text([["name", "dB"], ["a, b", None]])
    'name,dB\n"a, b",\n'
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[as_data(cell) for cell in row] for row in rows])
    return stream.getvalue()


def as_data(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: names of files come from outside.

    >>> as_data("=1+1"), as_data(" =1+1"), as_data("a"), as_data("-0.5"), as_data(-0.5)
    ("'=1+1", "' =1+1", 'a', '-0.5', -0.5)
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, the header among them; a reader never sees half a file.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(csv_text(rows), encoding="utf-8", newline="")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows below the header, by its names; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
