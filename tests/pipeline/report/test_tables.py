"""Tables on paper: every figure once, with the names of its row, in as many columns as a sheet holds."""

import pytest

from ct_cncl.pipeline.report.tables import MOST_ACROSS, MOST_PRINTED, Cell, Column, Sheet


def wide(parts, rows=2, names=2):
    """Columns by part; each figure says where it belongs."""
    columns = [Column(f"name {n}") for n in range(names)]
    columns += [Column(f"{part} {n}", part=part) for part, count in parts.items() for n in range(count)]
    body = [
        [Cell(f"row {r}") for _ in range(names)] + [Cell(f"{r} {one.title}", 1.0) for one in columns[names:]]
        for r in range(rows)
    ]
    return Sheet("key", "title", columns, body, names=names)


def figures(sheet):
    return [cell.text for row in sheet.rows for cell in row[sheet.names :]]


def test_a_table_that_fits_is_printed_as_it_is():
    assert not wide({"": MOST_ACROSS - 2}).wide
    assert wide({"": MOST_ACROSS - 2}).printed == []


def test_paper_holds_every_figure_once_beside_its_names():
    sheet = wide({"full": 3, "chest": 9, "": 4})
    printed = sheet.printed
    assert [one.title for one in printed] == ["full", "chest", "chest", "other figures"]
    assert [len(one.columns) for one in printed] == [5, 7, 6, 6]  # two of names; nine figures in halves
    assert sorted(cell for one in printed for cell in figures(one)) == sorted(figures(sheet))
    for one in printed:
        for number, row in enumerate(one.rows):
            assert [cell.text for cell in row[:2]] == [f"row {number}"] * 2
            assert [cell.text for cell in row[2:]] == [f"{number} {column.title}" for column in one.columns[2:]]


def test_rows_without_a_figure_are_not_repeated():
    sheet = wide({"full": 5, "": 5})
    empty = [*sheet.rows[1][:7], *[Cell("")] * 5]
    printed = Sheet("key", "title", sheet.columns, [sheet.rows[0], empty], names=2).printed
    assert [len(one.rows) for one in printed] == [2, 1]


@pytest.mark.parametrize("rows", [MOST_PRINTED // 2, MOST_PRINTED // 2 + 1])
def test_long_and_wide_tables_are_left_to_the_csv(rows):
    assert bool(wide({"full": 5, "": 5}, rows=rows).printed) is (rows == MOST_PRINTED // 2)
