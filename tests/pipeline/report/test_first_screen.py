"""The first screen in a real browser, on a desktop and on a phone: answer, figures, a whole image; and what a finger does."""

from contextlib import contextmanager
from dataclasses import replace

import chromium
import pytest
from report_browser import Page
from tiny_evaluation import tiny_evaluation

from ct_cncl.pipeline.report.evaluation_page import write_page

BOX = """
const box = (one) => { const { left, top, right, bottom } = one.getBoundingClientRect(); return [left, top, right, bottom]; };
return [...document.querySelectorAll(arguments[0])].filter((one) => one.offsetWidth).map(box);
"""


@contextmanager
def screen(page, *size):
    """The page opened anew on a screen of that size."""
    with chromium.screen(page.browser, *size):
        page.browser.refresh()
        page.settle()
        yield


@pytest.fixture(params=[chromium.DESKTOP, chromium.PHONE], ids=["desktop", "phone"])
def sized(request, page):
    with screen(page, *request.param):
        yield page, *request.param[:2]


def boxes(page, selector):
    return page.browser.execute_script(BOX, selector)


def test_answer_figures_and_a_whole_image_are_on_the_first_screen(sized):
    page, width, height = sized
    for selector, count in ((".verdict", 1), (".key-figure", 3), (".stage .pane", 1), ("#slice", 1), (".cautions", 1)):
        found = boxes(page, selector)
        assert len(found) == count, selector
        for left, top, right, bottom in found:
            assert 0 <= left < right <= width, selector
            assert 0 <= top < bottom <= height, selector
    (_, top, _, bottom) = boxes(page, ".stage")[0]
    assert bottom - top >= 250
    assert 0 <= boxes(page, "#slice")[0][1] - bottom < 30  # directly beneath
    words = page.browser.find_element("css selector", ".answer").text.replace("\N{MINUS SIGN}", "-")
    for text in (
        "cncl gains 3.00 dB",
        "+3.00 dB",
        "+1.00 to +5.00, 95 % interval over 7 slices",
        "9.5 to 10.5",
        "0.012",
    ):
        assert text in words


@pytest.mark.parametrize(("method", "shown"), [("candidate2", 3), ("", 2)])
def test_the_result_that_the_verdict_is_about_is_shown_at_first(method, shown, opened, tmp_path):
    evaluation = tiny_evaluation()
    path = write_page(replace(evaluation, verdict=replace(evaluation.verdict, method=method)), tmp_path / "report.html")
    before = opened.current_url
    try:
        opened.get(path.as_uri())
        Page(opened).settle()
        chosen = opened.execute_script("return document.querySelector('[data-set=right]').selectedOptions[0].text")
        assert chosen == evaluation.methods[shown].name
    finally:
        opened.get(before)


def test_nothing_is_wider_than_the_page(sized):
    page, _, _ = sized
    chromium.assert_fits(page.browser)


def test_cautions_are_one_line_that_unfolds(sized):
    page, _, _ = sized
    (_, top, _, bottom) = boxes(page, ".cautions")[0]
    assert bottom - top < 45
    assert not page.browser.find_element("css selector", ".cautions p").is_displayed()
    page.browser.find_element("css selector", ".cautions summary").click()
    assert page.browser.find_element("css selector", ".cautions p").text == "Few patients."


def test_the_wipe_s_handle_is_labelled_and_stays_in_the_image(sized):
    from selenium.webdriver.common.keys import Keys

    page, _, _ = sized
    assert page.browser.find_element("css selector", "label[for=wipe]").is_displayed()
    assert "wipe" in page.browser.find_element("css selector", ".wipe-handle").text
    for key in (Keys.HOME, Keys.END):
        page.keys(key)
        (left, top, right, bottom), pane = boxes(page, ".wipe-handle")[0], boxes(page, ".pane")[0]
        assert pane[0] <= left < right <= pane[2]
        assert pane[1] <= top < bottom <= pane[3]


def test_every_image_says_where_it_is_and_how_large(page):
    texts = [one.text for one in page.browser.find_elements("css selector", ".pane .side")]
    assert texts == ["R", "A", "L", "P"]
    foot = page.browser.find_element("css selector", ".pane-foot").text
    assert foot == "window 50/400 HU \N{MIDDLE DOT} pixel 0.70 \N{MULTIPLICATION SIGN} 0.70 mm \N{MIDDLE DOT} S 0 mm"
    assert page.browser.find_element("css selector", ".ruler").text.endswith("m")


def test_a_mark_is_jumped_to(page):
    from selenium.webdriver.support.ui import Select

    Select(page.browser.find_element("css selector", "select[data-set=mark]")).select_by_index(1)
    page.settle(1)
    assert page.value("slice") == 1
    assert page.value("zoom") == 4
    (left, top, right, bottom), pane = boxes(page, ".ring")[0], boxes(page, ".pane")[0]
    assert (left + right) / 2 == pytest.approx((pane[0] + pane[2]) / 2, abs=1)  # (30, 20) is in the middle
    assert (top + bottom) / 2 == pytest.approx((pane[1] + pane[3]) / 2, abs=1)
    page.keys("m")
    assert page.browser.find_element("css selector", "select[data-set=mark]").get_property("value") == "1"


def finger(page, start, by):
    """A finger put down at a share of the pane, moved by pixels and lifted."""
    left, top, right, bottom = boxes(page, ".pane")[0]
    x, y = left + start[0] * (right - left), top + start[1] * (bottom - top)
    steps = [("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0)]
    for kind, share in steps:
        points = [{"x": x + share * by[0], "y": y + share * by[1]}]
        page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.settle(page.value("slice"))


def lit(page):
    return [
        one.get_attribute("value")
        for one in page.browser.find_elements("css selector", "[data-set=drag][aria-pressed=true]")
    ]


def press(page, name, value):
    page.browser.execute_script("document.querySelector(arguments[0]).click()", f"[data-set={name}][value={value}]")
    page.settle(page.value("slice"))


def test_a_finger_does_what_is_lit(page):
    with screen(page, 390, 844, True):
        assert lit(page) == ["wipe"]
        finger(page, (0.2, 0.4), (60, 0))
        assert 0.3 < page.value("wipe") < 0.45
        assert page.window == (50, 400)
        press(page, "drag", "window")
        finger(page, (0.35, 0.4), (60, 20))  # beside the wipe line, which stays
        assert page.window.width > 500
        assert page.window.centre < 50
        assert 0.3 < page.value("wipe") < 0.45
        (_, top, _, bottom), pane = boxes(page, ".wipe-handle")[0], boxes(page, ".pane")[0]
        finger(
            page, (page.value("wipe"), ((top + bottom) / 2 - pane[1]) / (pane[3] - pane[1])), (60, 0)
        )  # the handle itself
        assert page.value("wipe") > 0.5
        press(page, "drag", "pan")
        page.keys("+", "+", "+")
        window, wipe = page.window, page.value("wipe")
        before = page.browser.execute_script("return document.querySelector('canvas').toDataURL()")
        finger(page, (0.2, 0.4), (60, 40))
        assert (page.window, page.value("wipe")) == (window, wipe)
        assert page.browser.execute_script("return document.querySelector('canvas').toDataURL()") != before
        press(page, "layout", "side")
        assert lit(page) == ["pan"]


def test_without_two_images_in_a_pane_there_is_nothing_to_wipe(page):
    press(page, "drag", "wipe")
    assert lit(page) == ["wipe"]
    press(page, "layout", "side")
    assert lit(page) == ["window"]
    assert not page.browser.find_element("css selector", "[data-set=drag][value=wipe]").is_enabled()
    page.drag(page.stage, (0.2, 0.5), (60, 0))
    assert page.window.width > 400
    assert page.value("wipe") == 0.5


def test_all_views_leave_no_empty_column(page):
    press(page, "layout", "all")
    left, _, right, _ = boxes(page, ".stage")[0]
    rows = {}
    for box in boxes(page, ".pane"):
        rows.setdefault(round(box[1]), []).append(box)
    widest = max(rows.values(), key=len)
    assert widest[0][0] - left < 4
    assert right - widest[-1][2] < 4
    empty = sum(len(widest) - len(row) for row in rows.values())
    assert empty < len(widest) / 2
    heights = {round(box[3] - box[1]) for row in rows.values() for box in row}
    assert max(heights) - min(heights) <= 1
