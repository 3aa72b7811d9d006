"""The page of an ablation in Debian's chromium: its answer and a whole image on the first screen."""

import pytest
from chromium import DESKTOP, PHONE, assert_fits, chromium, requests, screen
from report_browser import Page
from tiny_ablation import NAMES


@pytest.fixture(scope="module")
def opened(finished_ablation, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        browser.get((finished_ablation / "report.html").as_uri())
        yield browser


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_answer_and_a_whole_image_are_on_the_first_screen(opened, size):
    width, height, _ = size
    with screen(opened, *size):
        opened.refresh()
        Page(opened).settle()
        assert opened.find_element("css selector", ".verdict").text.startswith("Best of 2 by PSNR: ")
        assert opened.find_element("css selector", ".judged").text.startswith(f"{len(NAMES)} variants, trained alike")
        shown = opened.find_elements("css selector", ".verdict, .key-figure, .stage, #slice")
        assert len(shown) >= 1 + 2 + 1 + 1
        for one in shown:
            box = one.rect
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
            assert 0 <= box["y"] < box["y"] + box["height"] <= height
        assert_fits(opened)
        assert opened.get_log("browser") == []
        assert requests(opened) <= {opened.current_url}
