"""The report around its viewer in a real browser: tables, phone, paper, and a browser that is too old."""

import pytest
from tiny_evaluation import HOSTILE


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


def test_says_so_where_the_browser_cannot_unpack(opened):
    script = "delete window.DecompressionStream;"
    added = opened.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        opened.refresh()
        assert "This browser cannot unpack the slices" in opened.find_element("id", "viewer-status").text
    finally:
        opened.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
