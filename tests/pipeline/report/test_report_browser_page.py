"""The report around its viewer in a real browser: tables, phone, paper, and a browser that is too old."""

import re
from dataclasses import replace

import pytest
from chromium import printed
from tiny_evaluation import HOSTILE, MEASURES, METHODS, tiny_evaluation

from ct_cncl.pipeline.evaluation.record import SummaryRow
from ct_cncl.pipeline.report.evaluation_page import write_page


def column(page, table, place):
    return [
        row.find_elements("css selector", "th, td")[place].text.split("\n")[0]
        for row in page.browser.find_elements("css selector", f"#{table} tbody tr")
    ]


def test_tables_sort_by_mouse_and_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    header = page.browser.find_elements("css selector", "#summary thead button")[1]
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", header)
    header.click()
    assert column(page, "summary", 1) == ["30.00", "33.00", "36.00"]
    header.send_keys(Keys.ENTER)
    assert column(page, "summary", 1) == ["36.00", "33.00", "30.00"]
    assert header.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_rows_are_picked_by_their_first_cell_and_by_text(page):
    from selenium.webdriver.support.ui import Select

    page.browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    choice = Select(page.browser.find_element("css selector", "select[data-rows-of=patients]"))
    assert [option.text for option in choice.options] == ["all: method", "input", "cncl", HOSTILE]
    visible = "return [...document.querySelectorAll('#patients tbody tr')].filter((row) => !row.hidden).map((row) => row.cells[0].textContent + ' ' + row.cells[1].textContent)"
    choice.select_by_visible_text(HOSTILE)
    assert page.browser.execute_script(visible) == [f"{HOSTILE} patient 1", f"{HOSTILE} patient 2"]
    choice.select_by_visible_text("cncl")
    page.browser.find_element("css selector", "input[data-filter=patients]").send_keys("patient 2")
    assert page.browser.execute_script(visible) == ["cncl patient 2"]
    choice.select_by_index(0)
    found = page.browser.execute_script(visible)
    assert {"input patient 2", "cncl patient 2"} < set(found)
    assert not {"input patient 1", "cncl patient 1"} & set(found)


def test_phone_shows_all_without_scrolling_sideways(page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.browser.refresh()
        page.settle()
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert 340 < page.stage.size["width"] <= 390
        for name in ("slice", "wipe", "centre", "width"):
            assert page.control(name).size["width"] > 60
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_keeps_the_shape_of_the_picture_and_shows_all_windows(page):
    """Nothing is drawn anew for a printer: a pane of another shape would press the patient flat."""
    shape = """const box = document.querySelector(".pane").getBoundingClientRect();
        const ruler = document.querySelector(".ruler").getBoundingClientRect();
        return [box.width, box.height, ruler.width / box.width]"""
    width, height, ruler = page.browser.execute_script(shape)
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        printed = page.browser.execute_script(shape)
        assert printed[0] != width
        assert printed[0] / printed[1] == pytest.approx(width / height, rel=0.01)
        assert printed[2] == pytest.approx(ruler, rel=0.02)
        shown = "return [...document.querySelectorAll('#summary th')].filter((one) => one.offsetWidth > 0).length"
        assert page.browser.execute_script(shown) == 1 + 2 + 3  # method, both windows, rows
        assert (
            page.browser.execute_script("return getComputedStyle(document.documentElement).colorScheme") == "light only"
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.fixture
def wide_page(opened, tmp_path):
    """A report with five figures in each of two windows and six more, and as many comparisons as fill two sheets."""
    first = opened.current_url
    image = [
        replace(
            MEASURES[0], key=f"{kind}_{window}", title=f"{kind.upper()} {window}", conditions=f"window {window} 400 HU"
        )
        for window in ("full", "abdomen")
        for kind in ("psnr", "ssim", "vif", "rmse", "mae")
    ]
    others = [replace(MEASURES[2], key=f"other{n}", title=f"OTHER{n}", group="noise") for n in range(6)]
    others[0] = replace(others[0], key="noise")
    measures = [*image, *others]
    found = tiny_evaluation([], METHODS[:3])
    rows = [
        SummaryRow("candidate1", one.key, 1000 + number, None, None, 9, "slices") for number, one in enumerate(measures)
    ]
    compared = [replace(found.comparisons[0], measure=measures[n % 16].key) for n in range(80)]
    shown = replace(found, measures=measures, summaries=rows, comparisons=compared, slice_rows=[], patient_rows=[])
    opened.get(write_page(shown, tmp_path / "wide.html").as_uri())
    yield opened
    opened.get(first)


def test_paper_holds_all_windows_in_letters_that_can_be_read(wide_page, tmp_path):
    wide_page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide_page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 688, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )  # A4 less its margins
    cells = """return [...document.querySelectorAll("#results table")].filter((one) => one.offsetWidth).map((one) =>
        [one.getBoundingClientRect().right, Math.min(...[...one.querySelectorAll("th, td")].map((cell) => parseFloat(getComputedStyle(cell).fontSize)))])"""
    try:
        tables = wide_page.execute_script(cells)
        assert len(tables) >= 3  # full, abdomen, the others
        for right, letters in tables:
            assert right <= 688
            assert letters >= 11  # CSS pixels: 8 points
    finally:
        wide_page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        wide_page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    text = "".join(printed(wide_page, tmp_path))
    for number in range(11):  # the windows' ten, and the noise
        assert f"{1000 + number:,}.00" in text or f"{1000 + number:,}.0" in text


def test_a_table_over_two_sheets_has_its_head_on_both(wide_page, tmp_path):
    sheets = [sheet for sheet in printed(wide_page, tmp_path) if len(re.findall("cncl . input", sheet)) > 5]
    assert len(sheets) >= 2
    for sheet in sheets:
        assert re.search(r"pair +figure +difference +95 % interval", sheet)


def test_figures_of_a_plot_are_one_click_away(page):
    box = page.browser.find_element("css selector", ".chart-box")
    table = box.find_element("css selector", "table")
    assert not table.is_displayed()
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    box.find_element("css selector", "summary").click()
    assert table.is_displayed()
    rows = table.find_elements("css selector", "tbody tr")
    assert len(rows) == 30
    assert [cell.text for cell in rows[0].find_elements("css selector", "th, td")[:2]] == [
        "0.05",
        "100",
    ]  # of the input


def test_says_so_where_the_browser_cannot_unpack(opened):
    script = "delete window.DecompressionStream;"
    added = opened.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        opened.refresh()
        assert "This browser cannot unpack the slices" in opened.find_element("id", "viewer-status").text
    finally:
        opened.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
