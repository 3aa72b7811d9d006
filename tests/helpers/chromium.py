"""Debian's chromium, headless, for tests of pages; and checks that every page must pass: width, network access, console."""

import json
import shutil
from contextlib import contextmanager

import pytest

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
DESKTOP, PHONE = (1400, 1000, False), (390, 844, True)
"""Width and height in CSS pixels, and whether it is a touch screen."""
WIDE = """
return [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, .skip, .spoken, svg, script, .pane"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80));
"""


@contextmanager
def chromium(folder):
    """Headless Chromium with a fresh profile; logs its console and its requests. Skips where Chromium is not installed.

    Args:
        folder: for the profile.
    """
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Debian's chromium and chromium-driver")
    selenium = pytest.importorskip("selenium", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    options = selenium.webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        browser.set_page_load_timeout(120)  # the machine may be busy
        browser.get("about:blank")
        browser.get_log("performance")  # drop the entries of the browser's own start page
        yield browser
    finally:
        browser.quit()


@contextmanager
def screen(browser, width, height, touch):
    """A screen of that size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def assert_fits(browser):
    """Nothing is wider than the page, even with everything unfolded; tables scroll in their own boxes."""
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.execute_script(WIDE) == []


def requests(browser):
    """Addresses requested since the last call."""
    log = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {one["params"]["request"]["url"] for one in log if one["method"] == "Network.requestWillBeSent"}
    return {url for url in asked if not url.startswith(("chrome:", "chrome-untrusted:", "about:"))}


def tab_to(browser, wanted, most=60):
    """Press Tab until an element with this text has the focus; return it after checking that its outline is visible."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(most):
        active = browser.switch_to.active_element
        if active.text.strip() == wanted:
            assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return active
        active.send_keys(Keys.TAB)
    raise AssertionError(f"no Tab leads to {wanted!r}")


def printed(browser, folder):
    """The text of the page printed on A4, sheet by sheet, in the printed layout."""
    import base64
    import subprocess

    tool = shutil.which("pdftotext") or pytest.skip("needs Debian's poppler-utils")
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    (folder / "printed.pdf").write_bytes(base64.b64decode(pdf["data"]))
    done = subprocess.run(
        [tool, "-layout", str(folder / "printed.pdf"), "-"], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\f")
