"""The page as text: nothing from outside, nothing that runs, everything that was found, and small enough to be sent."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_evaluation import HOSTILE, MEASURES, METHODS, SHAPE, tiny_evaluation, tiny_slice
from unpacking import unpack_plane

from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE, Measure, SliceView, SummaryRow
from ct_cncl.pipeline.report.charts import draw_chart, method_colours
from ct_cncl.pipeline.report.colours import difference_map, sequential_map
from ct_cncl.pipeline.report.evaluation_page import page_html, write_page
from ct_cncl.pipeline.report.packing import DIGITS
from ct_cncl.pipeline.report.summary_tables import summary_sheets
from ct_cncl.pipeline.report.tables import comparison_sheet, window_of
from ct_cncl.pipeline.report.viewer_data import choose_slices, pack_planes


class Elements(HTMLParser):
    """All tags with their attributes, the text of scripts and of everything else."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.words, self.inside = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), []))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        (self.scripts[-1][1] if self.inside == "script" else self.words).append(data)


def packed(evaluation):
    return choose_slices(evaluation, pack_planes(evaluation))


@pytest.fixture(scope="module")
def page():
    return page_html(tiny_evaluation())


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page)


def test_names_of_files_are_text_and_never_code(elements):
    assert not [tag for tag, _ in elements.tags if tag in {"img", "iframe", "object", "embed", "link", "base", "form"}]
    assert not [name for _, found in elements.tags for name in found if name.startswith("on")]
    assert len([kind for kind, _ in elements.scripts if "type" not in kind]) == 1
    assert "window.hacked" not in "".join(elements.scripts[-1][1])
    assert HOSTILE in "".join(elements.words)
    assert all(set("".join(text)) <= set(DIGITS) for kind, text in elements.scripts if kind.get("type") == "text/plain")


def test_nothing_is_asked_of_a_network(page, elements):
    policy = next(found["content"] for tag, found in elements.tags if found.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert not [
        value
        for _, found in elements.tags
        for name, value in found.items()
        if name in {"src", "srcset", "data", "action"}
    ]
    links = [value for _, found in elements.tags for name, value in found.items() if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_are_unique_and_links_lead_somewhere(elements):
    ids = [found["id"] for _, found in elements.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for tag, found in elements.tags:
        for name in ("href", "for", "aria-labelledby", "data-filter", "data-columns-of", "data-copy"):
            if name in found and tag != "use":
                assert found[name].lstrip("#") in ids, (tag, name, found[name])


def test_planes_in_the_page_are_the_images(elements):
    evaluation = tiny_evaluation()
    scripts = {kind.get("id"): "".join(text) for kind, text in elements.scripts}
    manifest = json.loads(scripts["viewer-data"])
    assert len(manifest["slices"]) == 2
    for described, view in zip(manifest["slices"], evaluation.slices):
        assert described["label"] == view.label
        for name, plane in described["planes"].items():
            key, _, kind = name.partition(" ")
            wanted = view.maps[key][kind] if kind else view.images[key]
            found = unpack_plane(scripts[plane["id"]], SHAPE, step=plane["step"])
            np.testing.assert_allclose(found, wanted, atol=plane["step"] / 2)


@pytest.mark.parametrize(
    ("first", "scale"), [(3.0, 3.0), (0.0, 400.0)], ids=["the better one", "one that is the reference"]
)
def test_maps_start_in_the_window_of_the_best_result(first, scale, page):
    """A worse one beside it would make its map black; one without errors has no map to be seen."""
    one = tiny_slice(0)
    truth = one.images[REFERENCE]
    sign = np.where(np.indices(truth.shape).sum(axis=0) % 2, 1.0, -1.0).astype(np.float32)
    images = one.images | {"candidate1": truth + first * sign, "candidate2": truth + 400 * sign}
    (described,) = packed(tiny_evaluation([replace(one, images=images)])).manifest["slices"]
    assert described["scales"]["difference"] == scale
    assert "Starts where 95 % of the errors of the best result in this scan lie within." in page


def test_views_are_sums_of_planes():
    evaluation = tiny_evaluation()
    views = {view["title"]: view for view in packed(evaluation).manifest["views"]}
    assert views["cncl \N{MINUS SIGN} reference"]["terms"] == [("candidate1", 1), (REFERENCE, -1)]
    assert views["cncl: removed from the input"]["terms"] == [(INPUT, 1), ("candidate1", -1)]
    assert views["cncl: disagreement of C and N"]["terms"] == [("candidate1 disagreement", 1)]
    assert [view["kind"] for view in views.values()].count("image") == len(METHODS)


def test_disagreement_follows_from_content_and_noise():
    one = tiny_slice(0)
    maps = {"candidate1": {"noise": one.maps["candidate1"]["noise"], "content": one.images["candidate1"]}}
    views = packed(tiny_evaluation([replace(one, maps=maps)])).manifest["views"]
    view = next(view for view in views if view["kind"] == "disagreement")
    assert view["terms"] == [("candidate1 content", 1), ("candidate1 noise", 1), (INPUT, -1)]
    assert view["absolute"]


def test_twenty_slices_of_three_images_stay_below_20_mb(tmp_path):
    rng = np.random.default_rng(0)
    reference = 40 + rng.normal(0, 12, (512, 512))  # noise everywhere, more than in any scan, which has air
    images = {
        REFERENCE: reference,
        INPUT: reference + rng.normal(0, 24, reference.shape),
        "candidate1": reference + rng.normal(0, 2, reference.shape),
    }
    view = SliceView("a, slice 0", "patient 1", (0.7, 0.7), {key: hu.astype(np.float32) for key, hu in images.items()})
    path = write_page(tiny_evaluation([view], METHODS[:3]), tmp_path / "report.html")
    planes = re.findall(r'<script type="text/plain"[^>]*>([^<]*)<', path.read_text())
    assert len(planes) == 3
    assert 20 * sum(map(len, planes)) + path.stat().st_size - sum(map(len, planes)) < 20e6


def test_fewer_slices_where_not_all_fit():
    evaluation = tiny_evaluation([tiny_slice(number) for number in range(6)])
    planes = pack_planes(evaluation)
    everything = sum(len(text) for own in planes for text in own.values())
    half = choose_slices(evaluation, planes, max_bytes=everything // 2)
    assert (len(half.manifest["slices"]), half.left_out) == (3, 3)
    assert [one["label"][-1] for one in half.manifest["slices"]] == ["1", "3", "5"]


def test_the_limit_is_that_of_the_whole_page():
    """Tables and charts count too."""
    evaluation = tiny_evaluation([tiny_slice(number) for number in range(6)])
    whole = len(page_html(evaluation).encode())
    assert "slices are here" not in page_html(evaluation, max_bytes=whole)
    limit = whole - sum(len(text) for own in pack_planes(evaluation)[:2] for text in own.values()) - 2000
    page = page_html(evaluation, max_bytes=limit)
    assert len(page.encode()) <= limit
    assert "3 of 6 slices are here, evenly spaced" in page


def test_figures_are_the_ones_that_were_found():
    evaluation = tiny_evaluation()
    image, tissue = summary_sheets(evaluation, method_colours(evaluation))
    assert [row[0].text for row in image.rows] == ["input", "cncl", HOSTILE]
    assert [cell.text for cell in image.rows[1][1:]] == ["33.00", "34.00"]
    assert image.rows[1][1].note == "32.00 to 34.00"
    assert [row[1].best for row in image.rows] == [False, False, True]  # the highest PSNR
    assert image.parts == ["full", "abdomen"]
    assert [column.part for column in image.columns] == ["", "full", "abdomen"]
    assert image.numeric == [False, True, True]
    (lung,) = tissue.rows  # tissues are rows, methods columns
    assert [cell.text for cell in lung] == ["bias lung", "32.0", "35.0", "38.0"]
    assert [column.title for column in tissue.columns] == ["tissue", "input, HU", "cncl, HU", f"{HOSTILE}, HU"]
    assert [cell.best for cell in lung[1:]] == [True, False, False]  # the bias nearest to 0


def test_the_reference_has_a_row_of_its_own_and_is_never_the_best():
    evaluation = tiny_evaluation()
    noise = Measure("noise", "Noise", "HU", "calm soft tissue, 24 x 24 pixels", "lower", 1, "Spread.", "noise")
    rows = [
        SummaryRow(key, "noise", value, None, None, 3, "patients")
        for key, value in (("reference", 9.0), ("input", 30.0), ("candidate1", 12.0))
    ]
    shown = replace(evaluation, measures=[*MEASURES, noise], summaries=[*evaluation.summaries, *rows])
    table = summary_sheets(shown, method_colours(shown))[0]
    assert [(row[0].text, row[3].text, row[3].best) for row in table.rows] == [
        ("reference", "9.0", False),
        ("input", "30.0", False),
        ("cncl", "12.0", True),
        (HOSTILE, "\N{EN DASH}", False),
    ]
    assert table.rows[0][1].text == "\N{EN DASH}"  # it has no PSNR
    assert table.columns[3].note == "calm soft tissue"


def test_a_tissue_called_like_a_window_belongs_to_none():
    windows = {"full": (1024.0, 4096.0), "bone": (400.0, 1800.0)}
    tissue = replace(MEASURES[2], key="bias_bone")
    assert window_of(tissue, windows) == ""
    assert window_of(replace(MEASURES[0], key="psnr_bone"), windows) == "bone"


def test_figures_that_are_missing_say_why(page):
    assert "not computed<small>no lung in &lt;img" in page
    assert "not computed<small>constant image" in page


def test_differences_are_bold_only_where_the_interval_leaves_out_0():
    evaluation = tiny_evaluation()
    unclear = replace(evaluation.comparisons[0], low=-1.0)
    sheet = comparison_sheet(replace(evaluation, comparisons=[evaluation.comparisons[0], unclear]))
    assert [row[2].best for row in sheet.rows] == [True, False]


def test_every_condition_and_how_to_repeat_it_is_on_the_page(elements):
    words = "".join(elements.words)
    evaluation = tiny_evaluation()
    for measure in MEASURES:
        assert measure.conditions in words
    for text in (
        evaluation.provenance.command,
        "0.0 (abc)",
        "K1 0.01",
        "seed: bootstrap",
        "sha256 0123",
        *evaluation.warnings,
    ):
        assert text in words


def test_a_page_without_slices_or_figures_is_a_page():
    empty = replace(
        tiny_evaluation(),
        slices=[],
        slice_rows=[],
        patient_rows=[],
        summaries=[],
        comparisons=[],
        charts=[],
        measures=[],
        kind="qa",
    )
    elements = Elements(page_html(empty))
    assert "viewer" not in [found.get("id") for _, found in elements.tags]
    assert "Phantom test" in "".join(elements.words)


def test_charts_show_their_values_in_the_colours_of_the_page():
    chart = tiny_evaluation().charts[1]
    drawn = draw_chart(chart, method_colours(tiny_evaluation()))
    assert "var(--series-0)" in drawn.svg
    assert "#5e0" not in drawn.svg  # no stand-in colour is left
    assert "<text" in drawn.svg  # text stays text
    assert [name for name, _ in drawn.key] == ["input", "cncl", HOSTILE]


def test_colour_maps_are_read_with_every_colour_vision():
    """Lightness alone must order them, and the two ends of the differences must differ in blue against red and green."""
    luminance = difference_map() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance[:128]) <= 0.5).all()
    assert (np.diff(luminance[128:]) >= -0.5).all()
    assert abs(luminance[32] - luminance[-33]) < 25
    assert difference_map()[64, 2] > 2 * difference_map()[64, 0]
    assert difference_map()[-65, 0] > 2 * difference_map()[-65, 2]
    assert (np.diff(sequential_map() @ np.array([0.2126, 0.7152, 0.0722])) > -0.5).all()


def test_the_sequential_map_is_cividis():
    from matplotlib import colormaps

    cividis = colormaps["cividis"](np.arange(256), bytes=True)[:, :3].astype(int)
    assert np.abs(sequential_map().astype(int) - cividis).max() <= 4


def test_without_matplotlib_charts_are_left_out_and_the_rest_is_there(page, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing any of it raises
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("ct_cncl.pipeline.report.evaluation_page.is_installed", lambda _: False)
    without = page_html(tiny_evaluation())
    assert "pip install &#39;ct-cncl[report]&#39;" in without or "pip install 'ct-cncl[report]'" in without
    assert 'id="charts"' in page
    assert 'id="charts"' not in without
    assert '<svg class="chart"' not in without
    assert 'id="results"' in without
