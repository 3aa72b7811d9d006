"""What a person does with the report in a browser: mouse, keyboard, and reading pixels of the page's canvas."""

import time

import numpy as np
from tiny_evaluation import SHAPE, tiny_slice

from ct_cncl.transforms.common.hu import Window

READ = """
const pane = document.querySelectorAll(".pane canvas")[arguments[0]];
const context = pane.getContext("2d");
const data = context.getImageData(0, 0, pane.width, pane.height).data;
return [pane.width, pane.height, arguments[1].map(([x, y]) => [...data.slice(4 * (y * pane.width + x), 4 * (y * pane.width + x) + 3)])];
"""


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
            time.sleep(0.6)  # panes are redrawn when the browser reports their new size
        self.settle(self.value("slice"))

    def drag(self, element, start, by):
        """Drag with the mouse, from a fraction of the element's width and height, by pixels."""
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
        """Colours at the centres of slice pixels, (n, 3), at the positions that the page reports."""
        zoom = self.browser.execute_script("return document.querySelector('#zoom').value")
        places = self.places(pixels, float(zoom), pane)
        return np.array(self.browser.execute_script(READ, pane, places)[2])

    def places(self, pixels, zoom, pane=0):
        """Canvas positions of the centres of slice pixels, for a whole slice (zoom 1) with square pixels."""
        assert zoom == 1
        width, height, _ = self.browser.execute_script(READ, pane, [])
        scale = min(width / SHAPE[0], height / SHAPE[1])
        return [
            [int(width / 2 + (x + 0.5 - SHAPE[0] / 2) * scale), int(height / 2 + (y + 0.5 - SHAPE[1] / 2) * scale)]
            for x, y in pixels
        ]


def grey(hu, window):
    """Grey level in a window, 0 to 255, rounded to the nearest, computed independently from the definition."""
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


REFERENCE, INPUT, RESULT = (tiny_slice(0).images[key] for key in ("reference", "input", "candidate1"))
