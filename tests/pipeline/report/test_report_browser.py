"""The report's viewer in a real browser: mouse, keyboard, pixels compared with Python's.

Pixels are read from the page's own canvas with interpolation switched off.
"""

import time

import numpy as np
import pytest
from chromium import requests
from report_browser import INPUT, READ, REFERENCE, RESULT, assert_grey, grey, hu_at, pixels
from tiny_evaluation import HOSTILE, SHAPE, tiny_slice

from ct_cncl.pipeline.report.colours import difference_map, sequential_map
from ct_cncl.transforms.common.hu import WINDOWS, Window


def test_loads_without_errors_or_requests(opened, page):
    asked = requests(opened)
    assert asked == {opened.current_url.split("#")[0]}, asked
    assert opened.get_log("browser") == []
    assert opened.execute_script("return window.hacked") is None
    assert HOSTILE in opened.find_element("css selector", ".slice-label").text
    assert page.value("slice") == 0


def test_grey_levels_of_every_preset_are_as_computed(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.END)  # the left image everywhere
    for number, name in enumerate(("chest", "abdomen", "head", "bone", "full"), start=1):
        page.keys(str(number))
        assert page.window == WINDOWS[name]
        assert_grey(page, INPUT, pixels(), WINDOWS[name])


def test_sliders_of_the_window_change_the_pixels(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.HOME, "3")  # the right image everywhere, head
    page.drag(page.control("centre"), (0.27, 0.5), (30, 0))  # with the mouse
    moved = page.window
    assert moved.centre > 100
    assert moved.width == 80
    assert_grey(page, RESULT, pixels(), moved)
    page.control("width").send_keys(Keys.ARROW_RIGHT * 5)  # with the keyboard
    page.settle()
    assert page.window == Window(moved.centre, 85)
    assert_grey(page, RESULT, pixels(), page.window)


def test_free_window_by_dragging_and_by_keys(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.HOME)
    page.drag(page.stage, (0.3, 0.5), (60, -30))  # wider, and a higher centre: darker
    dragged = page.window
    assert dragged.width > 400
    assert dragged.centre > 50
    assert_grey(page, RESULT, pixels(), dragged)
    page.keys(Keys.ARROW_UP, Keys.ARROW_LEFT, shift=True)
    assert page.window.centre > dragged.centre
    assert page.window.width < dragged.width
    assert_grey(page, RESULT, pixels(), page.window)


def sides(page):
    """Where the wipe line is, as the share of pixels across the middle that show the left image."""
    row = [(x, SHAPE[1] // 2) for x in range(SHAPE[0])]
    found = page.shown(row)[:, 0]
    left, right = (grey(hu_at(image, row), page.window) for image in (INPUT, RESULT))
    told = left != right
    assert told.sum() > 20
    is_left = found == left
    assert (is_left | (found == right)).all()
    first_right = int(np.argmin(is_left | ~told)) if not (is_left | ~told).all() else SHAPE[0]
    np.testing.assert_array_equal(found[first_right:], right[first_right:])
    return first_right / SHAPE[0]


def test_wipe_by_mouse_slider_and_keys(page):
    from selenium.webdriver.common.keys import Keys

    page.keys("5")
    assert page.value("wipe") == 0.5
    assert abs(sides(page) - 0.5) < 0.1
    page.drag(page.stage, (0.5, 0.3), (120, 0))  # the line
    dragged = page.value("wipe")
    assert 0.55 < dragged < 0.9
    assert sides(page) > 0.55
    page.keys(*[Keys.ARROW_LEFT] * 12)
    assert page.value("wipe") == pytest.approx(dragged - 0.24, abs=0.011)
    page.control("wipe").send_keys(Keys.HOME)
    page.settle()
    assert sides(page) == 0
    page.keys(Keys.END)
    assert sides(page) == 1


def test_differences_are_taken_in_the_browser(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.HOME)
    page.choose("right", "cncl \N{MINUS SIGN} reference")
    scale = page.value("difference")
    places = pixels()
    level = grey(hu_at(RESULT - REFERENCE, places), Window(0, 2 * scale))
    np.testing.assert_array_equal(page.shown(places), difference_map()[level])
    page.keys(".")
    assert page.value("difference") > scale
    level = grey(hu_at(RESULT - REFERENCE, places), Window(0, 2 * page.value("difference")))
    np.testing.assert_array_equal(page.shown(places), difference_map()[level])


def test_disagreement_and_noise_have_their_own_colours(page):
    from selenium.webdriver.common.keys import Keys

    maps = tiny_slice(0).maps["candidate1"]
    places = pixels()
    page.keys(Keys.HOME)
    page.choose("right", "cncl: disagreement of C and N")
    end = page.value("disagreement")
    stored = np.rint(hu_at(maps["disagreement"], places) * 2) / 2
    np.testing.assert_array_equal(page.shown(places), sequential_map()[grey(stored, Window(end / 2, end))])
    page.choose("right", "cncl: N(y), noise predicted")
    assert_grey(page, maps["noise"], places, Window(0, 2 * page.value("difference")))
    page.choose("right", "cncl: removed from the input")
    assert_grey(page, INPUT - RESULT, places, Window(0, 2 * page.value("difference")))


def test_slices_by_keys_and_what_is_not_finite(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.HOME)
    page.choose("right", "reference")
    page.keys(Keys.ARROW_DOWN)
    assert page.value("slice") == 1
    assert_grey(page, tiny_slice(1).images["reference"], [(x, y) for x, y in pixels() if (x, y) != (5, 7)], page.window)
    assert page.shown([(5, 7)]).tolist() == [[255, 0, 255]]
    page.keys(Keys.PAGE_UP)
    assert_grey(page, REFERENCE, pixels(), page.window)


def test_panes_zoom_and_pan_in_step(page):
    page.keys("l", "5")
    assert len(page.browser.find_elements("css selector", ".pane canvas")) == 2
    for number, image in enumerate((INPUT, RESULT)):
        found = page.shown(pixels(), number)[:, 0]
        np.testing.assert_array_equal(found, grey(hu_at(image, pixels()), WINDOWS["full"]))
    before = page.browser.execute_script(READ, 0, [])[:2]
    page.keys("+", "+", "d")
    assert page.value("zoom") == pytest.approx(1.25**2, abs=0.03)
    middle = [[before[0] // 2, before[1] // 2]]
    left, right = (page.browser.execute_script(READ, number, middle)[2][0][0] for number in (0, 1))
    ramp = round(255 * 0.08 / 1.25**2)  # to the right by 8 % of what is visible, on a ramp over the whole window
    centre = grey(INPUT[SHAPE[0] // 2, SHAPE[1] // 2], WINDOWS["full"])
    assert abs(left - centre - ramp) < 12  # of which the noise is some
    assert abs(left - right) < 12
    page.keys("0")
    assert page.value("zoom") == 1


def test_all_views_at_once_and_one_picked_by_a_click(page):
    page.keys("l", "l", "5")
    panes = page.browser.find_elements("css selector", ".pane")
    titles = [pane.find_element("css selector", ".pane-label").text.split("\n")[0] for pane in panes]
    assert titles[:3] == ["reference", "input", "input \N{MINUS SIGN} reference"]
    assert titles[3] == "cncl"
    for number, image in enumerate((REFERENCE, INPUT)):
        expected = grey(hu_at(image, pixels()), WINDOWS["full"])
        until = time.monotonic() + 10  # panes of another size are drawn anew when the browser says so
        while not np.array_equal(page.shown(pixels(), number)[:, 0], expected) and time.monotonic() < until:
            time.sleep(0.1)
        np.testing.assert_array_equal(page.shown(pixels(), number)[:, 0], expected)
    panes[2].click()
    page.settle()
    assert page.browser.find_element("css selector", ".pane-label.right").text.split("\n")[0] == titles[2]
    assert len(page.browser.find_elements("css selector", ".pane")) == 1


def test_the_wheel_scrolls_the_page_until_the_stage_has_the_focus(page):
    wheel = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: arguments[1], ctrlKey: arguments[2], bubbles: true, cancelable: true, clientX: 300, clientY: 300}));"
    canvas = page.browser.find_element("css selector", ".pane canvas")
    page.browser.execute_script("document.activeElement.blur()")
    page.browser.execute_script(wheel, canvas, 120, False)
    assert page.value("slice") == 0
    page.stage.click()
    page.browser.execute_script(wheel, canvas, 120, False)
    page.settle(1)
    assert page.value("slice") == 1
    page.browser.execute_script(wheel, canvas, -200, True)
    assert page.value("zoom") == 2


def test_readout_says_hu_under_the_pointer(page):
    page.keys("5")
    width, height, _ = page.browser.execute_script(READ, 0, [])
    [[x, y]] = page.places([(10, 12)], 1)
    page.actions().move_to_element_with_offset(
        page.browser.find_element("css selector", ".pane"), x - width // 2, y - height // 2
    ).perform()
    text = page.browser.find_element("id", "readout").text.replace("\N{MINUS SIGN}", "-")
    assert "column 10, row 12" in text
    assert f"input: {INPUT[10, 12]:g} HU" in text
    assert f"cncl: {RESULT[10, 12]:g} HU" in text
