"""The page of ``ct-cncl noise`` in Debian's chromium: on a desktop and on a phone, by keyboard, without a network."""

import nibabel as nib
import numpy as np
import pytest
from chromium import DESKTOP, PHONE, assert_fits, chromium, requests, screen, tab_to

from ct_cncl.pipeline.noise_measurement.run import measure_scans

NAMES = ("a_scan_with_quite_a_long_name_of_its_own_1", "b")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    (folder / "in").mkdir()
    radius = np.hypot(*np.meshgrid(np.arange(128) - 63.5, np.arange(128) - 63.5, indexing="ij"))
    for seed, name in enumerate(NAMES):
        hu = np.where(radius < 55, 0.0, -1000.0)[..., None].repeat(2, axis=2)
        hu += np.random.default_rng(seed).normal(0, 10 * (seed + 1), hu.shape)
        image = nib.Nifti1Image(np.rint(hu).astype(np.int16), np.diag([-1.0, -1.0, 3.0, 1.0]))
        nib.save(image, folder / "in" / f"{name}.nii.gz")
    rows = measure_scans(folder / "in", out=folder / "out")
    with chromium(folder) as browser:
        browser.get((folder / "out" / "noise.html").as_uri())
        yield browser, rows


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def sized(request, opened):
    with screen(opened[0], *request.param):
        opened[0].refresh()
        yield *opened, request.param


def test_the_answer_is_on_the_first_screen_and_nothing_is_wider(sized):
    browser, rows, (width, height, _) = sized
    for one in browser.find_elements("css selector", ".verdict, .key-figure"):
        box = one.rect
        assert 0 <= box["x"] < box["x"] + box["width"] <= width
        assert 0 <= box["y"] < box["y"] + box["height"] <= height
    middle = np.median([row["level_hu"] for row in rows])
    assert f"Median noise of {middle:.1f} HU" in browser.find_element("css selector", ".verdict").text
    assert_fits(browser)
    assert browser.get_log("browser") == []
    assert requests(browser) == {browser.current_url}


def test_the_figures_of_a_spectrum_are_reached_by_keyboard(opened):
    browser, rows = opened
    browser.refresh()
    browser.execute_script("document.body.focus()")
    table = browser.find_element("css selector", "#chart-spectrum-0")
    assert not table.is_displayed()
    tab_to(browser, "Figures of this plot").send_keys(" ")
    assert table.is_displayed()
    heads = [one.text for one in table.find_elements("css selector", "thead th")]
    assert heads == ["frequency, 1/mm", NAMES[0], "lower end", "upper end"]
    third = [
        one.text for one in table.find_elements("css selector", "tbody tr")[2].find_elements("css selector", "th, td")
    ]
    spectrum = rows[0]["spectrum"]
    step = len(spectrum["frequency_per_mm"]) // len(table.find_elements("css selector", "tbody tr"))
    at = 2 * max(step, 1)
    assert float(third[0]) == pytest.approx(spectrum["frequency_per_mm"][at], rel=1e-3)
    assert float(third[1]) == pytest.approx(spectrum["power_hu2_mm2"][at], rel=1e-3)
    assert float(third[2]) < float(third[1]) < float(third[3])
