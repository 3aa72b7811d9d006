"""The report in Debian's chromium, headless, from a file. Skips where chromium or chromedriver is missing."""

import numpy as np
import pytest
from chromium import chromium
from report_browser import Page
from tiny_evaluation import tiny_evaluation, tiny_slice

from ct_cncl.pipeline.report.evaluation_page import write_page


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A browser with the page open; module-wide, since starting one takes seconds."""
    folder = tmp_path_factory.mktemp("browser")
    slices = [tiny_slice(0), tiny_slice(1)]
    slices[1].images["reference"][5, 7] = np.nan
    path = write_page(tiny_evaluation(slices), folder / "report.html")
    with chromium(folder) as browser:
        browser.get(path.as_uri())
        yield browser


@pytest.fixture
def page(opened):
    """The page as it was opened, plain pixels, with the keys to the stage."""
    opened.refresh()
    found = Page(opened)
    found.settle()
    found.keys("i")
    assert found.checked("smooth") is False
    return found
