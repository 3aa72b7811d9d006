"""The report in Debian's chromium, headless, from a file. Skips where chromium or chromedriver is missing."""

import shutil

import numpy as np
import pytest
from report_browser import Page
from tiny_evaluation import tiny_evaluation, tiny_slice

from ct_cncl.pipeline.report.evaluation_page import write_page

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


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A browser with the page open; module-wide, since starting one takes seconds."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Debian's chromium and chromium-driver")
    selenium = pytest.importorskip("selenium", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    folder = tmp_path_factory.mktemp("browser")
    slices = [tiny_slice(0), tiny_slice(1)]
    slices[1].images["reference"][5, 7] = np.nan
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
