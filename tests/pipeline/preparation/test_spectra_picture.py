import re

import pytest

from ct_cncl.pipeline.preparation.spectra_picture import BOTTOM, HEIGHT, TOP, spectra_svg


def points(kind, picture):
    return [tuple(map(float, pair.split(","))) for pair in re.search(rf'<{kind} points="([^"]*)"', picture)[1].split()]


def test_a_band_is_drawn_whole_around_its_curve():
    picture = spectra_svg([("noise", [0.0, 0.5, 1.0], [0.0, 4.0, 1.0])], band=([0.0, 3.0, 0.5], [0.0, 8.0, 2.0]))
    high = HEIGHT - TOP - BOTTOM
    peak = points("polyline", picture)[1][1]
    lower, upper = points("polygon", picture)[1][1], points("polygon", picture)[4][1]
    assert [TOP + high - y for y in (peak, lower, upper)] == pytest.approx([high * v / 8.4 for v in (4, 3, 8)], abs=0.1)
    assert upper > TOP
