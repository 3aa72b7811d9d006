"""One frame and one style sheet for all pages."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_evaluation import tiny_evaluation

import ct_cncl.pipeline
from ct_cncl.pipeline.noise_measurement.page import page as noise_page
from ct_cncl.pipeline.report.charts import SERIES
from ct_cncl.pipeline.report.evaluation_page import page_html
from ct_cncl.pipeline.report.frame import TEMPLATES, styles

PIPELINE = Path(ct_cncl.pipeline.__path__[0])


def test_every_template_of_a_page_has_the_frame():
    templates = {path.name: path.read_text() for path in PIPELINE.rglob("*.html")}
    whole = [name for name, text in templates.items() if "<html" in text]
    assert whole == ["frame.html"]
    framed = {name for name, text in templates.items() if re.match(r'\{% extends "(frame|base)\.html" %\}', text)}
    assert framed == {"page.html", "noise.html", "base.html", "queue.html", "job.html", "problem.html"}


def test_the_node_s_page_has_no_colours_of_its_own():
    """But black behind images."""
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", (PIPELINE / "node/templates/node.css").read_text())) == {"#000"}


def test_pages_carry_the_same_styles():
    shared = [(TEMPLATES / name).read_text() for name in ("theme.css", "page.css", "tables.css", "print.css")]
    pages = [page_html(tiny_evaluation()), page_html(tiny_evaluation([])), noise_page([], [], {}), styles()]
    for page in pages:
        assert all(sheet in page for sheet in shared)


def test_what_is_for_paper_comes_last():
    found = styles("viewer.css")
    assert found.index("@media print {\n  @page") > found.index(".viewer-panel")


SEEN = {
    "all": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""Linear RGB as it is seen: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), 1291, severity 1."""


def cielab(rgb):
    """CIELAB under D65 of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", SEEN)
@pytest.mark.parametrize("medium", ["screen", "paper"])
def test_lines_are_told_apart_with_every_colour_vision(medium, vision):
    theme = (TEMPLATES / "theme.css").read_text().partition("@media print")[0 if medium == "screen" else 2]
    found = dict(re.findall(r"--(series-\d|input|reference): #([0-9a-f]{3,6})", theme))
    assert len(found) == SERIES + 2
    colours = {}
    for name, written in found.items():
        digits = written if len(written) == 6 else "".join(2 * digit for digit in written)
        shares = np.array([int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)])
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        colours[name] = cielab(SEEN[vision] @ linear)
    for (one, first), (other, second) in itertools.combinations(colours.items(), 2):
        assert np.linalg.norm(first - second) >= 15, (one, other)
