"""The page in Debian's chromium, headless: on a desk and on a phone, by keyboard alone, without an error on its console."""

import os

import pytest

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")
pytest.importorskip("uvicorn", reason="needs ct-cncl[node]")
pytest.importorskip("selenium", reason="needs selenium")

from chromium import assert_fits, chromium, requests, screen
from page_of_node import add_job, made_up_node, served
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tiny_node import until


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    found = made_up_node(tmp_path_factory.mktemp("page"))
    for number, state in enumerate(("done", "sending", "denoising", "received"), 1):
        add_job(found, number, state)
    add_job(
        found, 5, "failed", error="pacs: Expected PACS at pacs.hospital.example port 104 to answer, but it does not.", sender="CT2", deliver="failed",
        warnings=["noise of 60 HU lies outside the 10 to 20 HU of the training data"],
    )  # fmt: skip
    add_job(found, 6, "complete")
    return found


@pytest.fixture(scope="module")
def browser(node, tmp_path_factory):
    with served(node) as address, chromium(tmp_path_factory.mktemp("profile")) as found:
        found.address = address
        yield found


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desk", "phone"])
def sized(browser, request):
    width, height = request.param
    requests(browser)  # of the tests before
    with screen(browser, width, height, width < 800):
        yield browser
    errors = [entry["message"] for entry in browser.get_log("browser")]
    assert errors == []
    asked = requests(browser)
    assert asked
    assert all(url.startswith((f"{browser.address}/", "data:")) for url in asked), asked


def keep(browser, name):
    """A picture to look at, where somebody wants to: NODE_PAGE_PICTURES=FOLDER."""
    folder = os.environ.get("NODE_PAGE_PICTURES")
    if folder:
        width = browser.execute_script("return innerWidth")
        browser.save_screenshot(f"{folder}/{name}_{width}.png")


def test_the_queue_fits(sized):
    sized.get(sized.address)
    assert_fits(sized)
    read = "return [...document.querySelectorAll('tbody a, .health')].map((one) => one.textContent)"
    health, *jobs = sized.execute_script(read)  # at once: the page brings itself up to date meanwhile
    assert jobs == ["6", "5", "4", "3", "2", "1"]
    assert "failed jobs" in health
    keep(sized, "queue")


def test_a_job_fits_and_its_pictures_are_there(sized):
    sized.get(f"{sized.address}/jobs/1")
    assert_fits(sized)
    assert until(
        lambda: sized.execute_script(
            "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
        )
    )
    assert len(sized.find_elements(By.CSS_SELECTOR, ".pictures img")) == 3
    keep(sized, "job")
    sized.get(f"{sized.address}/jobs/5")
    assert_fits(sized)
    keep(sized, "failed")


def test_targets_are_large_enough_for_a_finger(sized):
    sized.get(f"{sized.address}/jobs/5")
    heights = (
        "return [...document.querySelectorAll('button')].map((one) => one.offsetHeight).filter((height) => height > 0)"
    )
    found = sized.execute_script(heights)
    assert found
    assert min(found) >= 40


def test_by_keyboard_alone(browser, node):
    browser.get(f"{browser.address}/?state=failed")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "To the content"
    for _ in range(40):
        active = browser.switch_to.active_element
        if active.text == "5" and active.tag_name == "a":
            break
        active.send_keys(Keys.TAB)
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert until(lambda: browser.current_url.endswith("/jobs/5"))
    for _ in range(40):
        active = browser.switch_to.active_element
        if active.text == "Retry now":
            break
        active.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert until(lambda: node.jobs.get(5).state == "sending")
    assert until(lambda: "sending" in browser.execute_script("return document.querySelector('h1')?.textContent || ''"))


def test_it_brings_itself_up_to_date(browser, node):
    browser.get(f"{browser.address}/?state=received")
    assert len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == 1
    add_job(node, 7, "received")
    assert until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == 2)
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_another_page_cannot_post_to_it(browser, node, tmp_path):
    """A form on another site, sent by the same browser."""
    form = f'<form method="post" action="{browser.address}/jobs/1/drop"><input name="token" value="x"><button>go</button></form>'
    (tmp_path / "evil.html").write_text(form)
    browser.get((tmp_path / "evil.html").as_uri())
    browser.find_element(By.TAG_NAME, "button").click()
    assert until(lambda: "Refused: from another page" in browser.page_source)
    assert node.jobs.get(1).state == "done"
    browser.get_log("browser")
