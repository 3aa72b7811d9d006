"""The CSV writer for all tables: lines end in a line feed, None is an empty cell, numbers keep all digits."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.files import replacing

_FORMULA = re.compile("[\t\r]|[\\s\u200b\u2060\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20]")
"""How a formula may begin: some programs first drop blanks and zero-width characters."""


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    r"""Format rows, including the header, as CSV.

    >>> csv_text([["name", "dB"], ["a, b", None]])
    'name,dB\n"a, b",\n'
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[as_data(cell) for cell in row] for row in rows])
    return stream.getvalue()


def as_data(cell: Any) -> Any:
    """Quote a cell that a spreadsheet would take for a formula: file names come from untrusted sources.

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
    """Write rows, including the header, to a CSV file; a reader never sees a half-written file.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(csv_text(rows), encoding="utf-8", newline="")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file as dictionaries by column name; an empty list if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
