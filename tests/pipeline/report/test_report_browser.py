"""The report in a real browser: Debian's chromium, headless, from a file; mouse, keyboard, pixels compared with Python's.

Skips where chromium or chromedriver is missing. Pixels are read from the page's own canvas with interpolation switched off.
"""

import json
import shutil
import time

import numpy as np
import pytest
from tiny_evaluation import HOSTILE, SHAPE, tiny_evaluation, tiny_slice

from ct_cncl.pipeline.report.colours import difference_map, sequential_map
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.transforms.hu import WINDOWS, Window

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-prefers-reduced-motion",
]
READ = """
const pane = document.querySelectorAll(".pane canvas")[arguments[0]];
const context = pane.getContext("2d");
const data = context.getImageData(0, 0, pane.width, pane.height).data;
return [pane.width, pane.height, arguments[1].map(([x, y]) => [...data.slice(4 * (y * pane.width + x), 4 * (y * pane.width + x) + 3)])];
"""
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A browser with the page open; module-wide, since starting one takes seconds."""
    selenium = pytest.importorskip("selenium", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    folder = tmp_path_factory.mktemp("browser")
    slices = [tiny_slice(0), tiny_slice(1)]
    slices[1].images["truth"][5, 7] = np.nan
    path = write_page(tiny_evaluation(slices), folder / "report.html")
    options = selenium.webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        browser.set_page_load_timeout(120)  # machines that do other things as well
        browser.get("about:blank")
        browser.get_log("performance")  # the browser's own first page is none of ours
        browser.get(path.as_uri())
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def page(opened):
    """The page as it was opened, plain pixels, with the keys to the stage."""
    opened.refresh()
    found = Page(opened)
    found.settle()
    found.keys("i")
    assert found.checked("smooth") is False
    return found


class Page:
    """What a person does with the page, and sees."""

    def __init__(self, browser):
        from selenium.webdriver.common.action_chains import ActionChains

        self.browser = browser
        self.actions = lambda: ActionChains(browser, duration=20)

    def settle(self, slice_number=0):
        """Wait until the slice is drawn with the newest state: two frames after it was unpacked."""
        until = time.monotonic() + 40
        while self.browser.execute_script("return document.querySelector('#stage')?.dataset.drawn") != str(
            slice_number
        ):
            assert time.monotonic() < until, "no slice was drawn"
            time.sleep(0.02)
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)));"
        )

    @property
    def stage(self):
        return self.browser.find_element("id", "stage")

    def keys(self, *keys, shift=False):
        """Press keys on the stage."""
        from selenium.webdriver.common.keys import Keys

        self.browser.execute_script("arguments[0].focus()", self.stage)
        actions = self.actions()
        for key in keys:
            actions = (
                actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else actions.send_keys(key)
            )
        actions.perform()
        if "l" in keys:
            time.sleep(0.6)  # panes of another size are drawn anew when the browser says so
        self.settle(self.value("slice"))

    def drag(self, element, start, by):
        """With the mouse, from a share of the element's width and height by pixels."""
        box = element.size
        at = [round(box[side] * (share - 0.5)) for side, share in zip(("width", "height"), start)]
        actions = self.actions().move_to_element_with_offset(element, *at).click_and_hold()
        actions.move_by_offset(by[0] // 2, by[1] // 2).move_by_offset(
            by[0] - by[0] // 2, by[1] - by[1] // 2
        ).release().perform()
        self.settle(self.value("slice"))

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()
        self.settle(self.value("slice"))

    def choose(self, side, title):
        from selenium.webdriver.support.ui import Select

        Select(self.browser.find_element("css selector", f"select[data-set={side}]")).select_by_visible_text(title)
        self.settle(self.value("slice"))

    def control(self, name):
        return self.browser.find_element("css selector", f"[data-set={name}]")

    def value(self, name):
        number = float(self.control(name).get_property("value"))
        return int(number) if number.is_integer() else number

    def checked(self, name):
        return self.control(name).get_property("checked")

    @property
    def window(self):
        return Window(self.value("centre"), self.value("width"))

    def shown(self, pixels, pane=0):
        """Colours at the middles of pixels of the slice, (n, 3), from where the page says that they are."""
        zoom = self.browser.execute_script("return document.querySelector('#zoom').value")
        places = self.places(pixels, float(zoom), pane)
        return np.array(self.browser.execute_script(READ, pane, places)[2])

    def places(self, pixels, zoom, pane=0):
        """Canvas pixels of the middles of slice pixels, for a slice that is shown whole (zoom 1) in square pixels."""
        assert zoom == 1
        width, height, _ = self.browser.execute_script(READ, pane, [])
        scale = min(width / SHAPE[0], height / SHAPE[1])
        return [
            [int(width / 2 + (x + 0.5 - SHAPE[0] / 2) * scale), int(height / 2 + (y + 0.5 - SHAPE[1] / 2) * scale)]
            for x, y in pixels
        ]


def grey(hu, window):
    """The grey level of a window, 0 to 255, rounded to the nearest: computed here from the definition."""
    share = (np.asarray(hu, dtype=np.float64) - (window.centre - window.width / 2)) / window.width
    return np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(int)


def pixels(count=60, seed=0, columns=SHAPE[0], start=0):
    rng = np.random.default_rng(seed)
    return [(int(x), int(y)) for x, y in zip(rng.integers(start, columns, count), rng.integers(0, SHAPE[1], count))]


def hu_at(image, places):
    return np.array([image[x, y] for x, y in places])


def assert_grey(page, image, places, window):
    found = page.shown(places)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    np.testing.assert_array_equal(found[:, 0], grey(hu_at(image, places), window))


TRUTH, INPUT, RESULT = (tiny_slice(0).images[key] for key in ("truth", "input", "candidate1"))


def test_loads_without_errors_or_requests(opened, page):
    log = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {entry["params"]["request"]["url"] for entry in log if entry["method"] == "Network.requestWillBeSent"}
    asked = {url for url in asked if not url.startswith(("chrome:", "chrome-untrusted:"))}
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
    page.choose("right", "cncl \N{MINUS SIGN} truth")
    scale = page.value("difference")
    places = pixels()
    level = grey(hu_at(RESULT - TRUTH, places), Window(0, 2 * scale))
    np.testing.assert_array_equal(page.shown(places), difference_map()[level])
    page.keys(".")
    assert page.value("difference") > scale
    level = grey(hu_at(RESULT - TRUTH, places), Window(0, 2 * page.value("difference")))
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
    page.choose("right", "truth")
    page.keys(Keys.ARROW_DOWN)
    assert page.value("slice") == 1
    assert_grey(page, tiny_slice(1).images["truth"], [(x, y) for x, y in pixels() if (x, y) != (5, 7)], page.window)
    assert page.shown([(5, 7)]).tolist() == [[255, 0, 255]]
    page.keys(Keys.PAGE_UP)
    assert_grey(page, TRUTH, pixels(), page.window)


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
    assert titles[:3] == ["truth", "input", "input \N{MINUS SIGN} truth"]
    assert titles[3] == "cncl"
    for number, image in enumerate((TRUTH, INPUT)):
        expected = grey(hu_at(image, pixels()), WINDOWS["full"])
        until = time.monotonic() + 10  # panes of another size are drawn anew when the browser says so
        while not np.array_equal(page.shown(pixels(), number)[:, 0], expected) and time.monotonic() < until:
            time.sleep(0.1)
        np.testing.assert_array_equal(page.shown(pixels(), number)[:, 0], expected)
    panes[2].click()
    page.settle()
    assert page.browser.find_element("css selector", ".pane-label.right").text == titles[2]
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


def column(page, table, place):
    return [
        row.find_elements("css selector", "th, td")[place].text.split("\n")[0]
        for row in page.browser.find_elements("css selector", f"#{table} tbody tr")
    ]


def test_tables_sort_by_mouse_and_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    header = page.browser.find_elements("css selector", "#summary-image thead button")[1]
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", header)
    header.click()
    assert column(page, "summary-image", 1) == ["30.00", "33.00", "36.00"]
    header.send_keys(Keys.ENTER)
    assert column(page, "summary-image", 1) == ["36.00", "33.00", "30.00"]
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
        shown = "return [...document.querySelectorAll('#summary-image th')].filter((one) => one.offsetWidth > 0).length"
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
