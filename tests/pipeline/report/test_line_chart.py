"""Charts as SVG: where points and ticks lie."""

import math
import re
from xml.etree import ElementTree as ET

import pytest

from ct_cncl.pipeline.report.line_chart import COLOURS, line_chart, line_style, ticks

OPTIONS = {"title": "result <of> a & b", "x_label": "minutes", "y_label": "dB", "y_range": (38.0, 44.0)}


def polylines(chart):
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)"', chart)
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (36.0, 47.0, [36, 38, 40, 42, 44, 46]),
        (0.0, 0.03, [0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03]),
        (0.0, 4000.0, [0, 1000, 2000, 3000, 4000]),
        (-1.5, 1.5, [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_points_lie_in_proportion():
    chart = line_chart({0: [(0.0, 38.0), (5.0, 41.0), (10.0, 44.0)]}, **OPTIONS)
    (left, bottom), (middle, half), (right, top) = polylines(chart)[0]
    frame = re.search(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', chart)
    x, y, width, height = map(int, frame.groups())
    assert (left, bottom, right, top) == (x, y + height, x + width, y)
    assert (middle, half) == (x + width / 2, y + height / 2)


def test_is_well_formed_and_escapes_what_it_shows():
    chart = line_chart({0: [(1.0, 40.0)]}, reference=39.5, **OPTIONS)
    root = ET.fromstring(chart)
    assert "result <of> a & b" in [element.text for element in root.iter("text")]


def test_numbers_that_are_none_are_left_out():
    chart = line_chart({0: [(1.0, 40.0), (2.0, math.nan), (3.0, math.inf), (4.0, 41.0)]}, **OPTIONS)
    assert len(polylines(chart)[0]) == 2
    assert "nan" not in chart
    assert "inf" not in chart


def test_reference_is_drawn_where_it_is_within_the_chart():
    assert 'stroke="#000"' in line_chart({}, reference=39.0, **OPTIONS)
    assert 'stroke="#000"' not in line_chart({}, reference=37.0, **OPTIONS)


def test_a_range_of_nothing_has_room():
    chart = line_chart({0: [(1.0, 40.0)]}, **(OPTIONS | {"y_range": (40.0, 40.0)}))
    ((_, y),) = polylines(chart)[0]
    assert 26 < y < 240


def test_every_line_has_its_own_style():
    styles = [line_style(number) for number in range(3 * len(COLOURS))]
    assert len(set(styles)) == len(styles)
