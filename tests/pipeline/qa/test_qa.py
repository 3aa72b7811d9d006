"""The phantom test of denoisers whose effect is known."""

import math
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tiny_weights import Add, scripted

from ct_cncl.pipeline.evaluation.record import INPUT
from ct_cncl.pipeline.metrics import noise_figures
from ct_cncl.pipeline.qa.measure import detectabilities, measure_dose, noise_power
from ct_cncl.pipeline.qa.phantoms import LESIONS, Scanner, ScanSettings, discs, lesions, sites, water
from ct_cncl.pipeline.qa.run import QAOptions, evaluate_phantoms, run_qa
from ct_cncl.transforms.common.errors import OutputError

SMALL = ScanSettings(size=160, pixel_mm=1.2, radius_mm=75.0, views=240)


@pytest.fixture(scope="module")
def scanner():
    return Scanner(SMALL)


@pytest.fixture(scope="module")
def scans(scanner):
    """Water, discs and lesions at a quarter of the dose, 12 slices each."""
    return [scanner.scan(make(scanner), 0.25, 12, stream=k) for k, make in enumerate((water, discs, lesions))]


@pytest.fixture(scope="module")
def found(scanner, scans):
    return measure_dose(scanner, *scans)


def test_noise_at_full_dose_is_what_was_asked_for_and_goes_with_the_root_of_the_dose(scanner):
    levels = {}
    for dose in (1.0, 0.25):
        volume = scanner.scan(water(scanner), dose, 6, stream=9)
        levels[dose] = noise_figures(noise_power(scanner, volume), pixel_mm=scanner.pixel).level_hu
    assert levels[1.0] == pytest.approx(SMALL.noise_hu, rel=0.06)
    assert levels[0.25] / levels[1.0] == pytest.approx(2, rel=0.05)


def test_without_noise_discs_have_their_hu_and_lesions_stand_at_their_sites(scanner):
    clean = scanner.clean(discs(scanner))
    for part in discs(scanner)[1:]:
        inside = clean[scanner.disc_mask(part.x_mm, part.y_mm, 0.6 * part.a_mm)]
        assert inside.mean() == pytest.approx(part.value, abs=max(1.0, 0.004 * abs(part.value)))
    difference = scanner.clean(lesions(scanner)) - scanner.clean(water(scanner))
    for k, (x, y) in enumerate(sites(scanner)):
        diameter, contrast = LESIONS[k % 3]
        assert difference[x, y] > 0.45 * contrast
        area = difference[x - 6 : x + 7, y - 6 : y + 7].sum() * SMALL.pixel_mm**2
        assert area == pytest.approx(contrast * math.pi * diameter**2 / 4, rel=0.06)


def test_measured_figures_of_the_reconstruction(found):
    assert found.noise.level_hu == pytest.approx(20, rel=0.06)
    assert found.water_hu == pytest.approx(0, abs=1)
    assert abs(found.uniformity_hu) < 4
    for contrast, value in found.disc_hu.items():
        assert value == pytest.approx(contrast, abs=4)


def test_a_blur_multiplies_the_transfer_by_its_own_at_every_contrast(scanner, scans):
    """Of a Gaussian of sigma s the transfer is exp(-2 (pi s f)^2), and its noise power the square of that."""
    sigma = 0.9
    blurred = [gaussian_filter(scan, (sigma, sigma, 0)) for scan in scans]
    before, after = (measure_dose(scanner, *each) for each in (scans, blurred))
    for contrast in (-800.0, 340.0, 950.0):
        one, other = before.transfer[contrast], after.transfer[contrast]
        gaussian = np.exp(-2 * (math.pi * sigma * SMALL.pixel_mm * one.frequency) ** 2)
        used = one.ttf * gaussian > 0.1
        assert np.abs(other.ttf - one.ttf * gaussian)[used].max() < 0.035
    inner = slice(3, 8)
    frequency = before.power.frequency[inner]
    ratio = after.power.radial[inner] / before.power.radial[inner]
    assert ratio == pytest.approx(np.exp(-4 * (math.pi * sigma * SMALL.pixel_mm * frequency) ** 2), rel=0.15)


def test_hotelling_s_detectability_does_not_change_by_a_blur_but_by_noise(scanner, scans):
    """A filter that can be undone takes nothing from an ideal observer; noise that is added does."""
    kind = LESIONS[2]
    plain = measure_dose(scanner, *scans).detectability[kind]
    blurred = measure_dose(scanner, *(gaussian_filter(scan, (0.6, 0.6, 0)) for scan in scans)).detectability[kind]
    rng = np.random.default_rng(0)
    coarse = [scan + gaussian_filter(rng.normal(0, 90, scan.shape), (1.5, 1.5, 0)) for scan in scans]
    worse = measure_dose(scanner, *coarse).detectability[kind]
    assert blurred.d_prime == pytest.approx(plain.d_prime, rel=0.15)
    assert worse.d_prime < 0.75 * plain.d_prime


def test_a_bias_is_found_where_it_is(scanner, scans):
    shifted = [np.where(scan > 200, scan * 1.02, scan).astype(np.float32) for scan in scans]
    found = measure_dose(scanner, *shifted).disc_hu
    assert found[950.0] == pytest.approx(1.02 * 950, abs=4)
    assert found[-100.0] == pytest.approx(-100, abs=4)


def test_the_page_has_charts_and_tables_for_every_dose_and_method():
    found = evaluate_phantoms(
        {"as it is": lambda volume: volume, "none left": np.zeros_like},
        doses=(0.25, 1.0), slices=4, scan=SMALL,
    )  # fmt: skip
    assert [method.name for method in found.methods] == ["no noise", "reconstruction", "as it is", "none left"]
    tables = {table.key: table for table in found.tables}
    assert set(tables) == {
        "noise", "transfer", "linearity", "detectability", "inserts", "false_structure", "characterisation", "levels", "strengths"
    }  # fmt: skip
    kept = {row[0]: row[2:4] for row in tables["inserts"].rows}
    assert kept == {
        "as it is": [pytest.approx(100), pytest.approx(100)],
        "none left": [pytest.approx(0, abs=0.5), pytest.approx(0)],
    }
    assert len(tables["noise"].rows) == 3 * 2
    assert len(tables["detectability"].rows) == 3 * 2 * len(LESIONS)
    same = [row[1:] for row in tables["noise"].rows if row[0] == "as it is"]
    assert same == [row[1:] for row in tables["noise"].rows if row[0] == "reconstruction"]
    gone = [row for row in tables["transfer"].rows if row[1] == "none left"]
    assert all("not computed" in row[-1] for row in gone)
    assert all(row[4] is None for row in tables["detectability"].rows if row[2] == "none left")
    keys = {chart.key for chart in found.charts}
    assert {"noise", "nps", "linearity", "ttf_+120", "detectability_6mm"} <= keys
    for chart in found.charts:
        for curve in chart.curves:
            assert np.isfinite(curve.y).all()
            assert np.isfinite(curve.x).all()
    assert re.search(r"dose 0.25: noise (19|20)\.\d HU of", found.summary[0])
    assert {view.label for view in found.slices} == {
        "discs, dose 1", "discs, dose 0.25", "lesions, dose 1", "lesions, dose 0.25"
    }  # fmt: skip
    assert set(found.slices[0].images) == {"reference", INPUT, "candidate1", "candidate2"}


def test_weights_are_tested_and_the_page_written(tmp_path):
    weights = scripted(Add(8.0), tmp_path / "plus8.ts")
    options = {"out": tmp_path / "qa", "doses": (0.5,), "slices": 4, "scan": SMALL, "device": "cpu"}
    found = run_qa(QAOptions((weights,), **options))
    row = next(row for row in found.tables[2].rows if row[0] == "plus8")
    before = next(row for row in found.tables[2].rows if row[0] == "reconstruction")
    assert [figure.title for figure in found.verdict.figures] == ["Noise left", "Contrast kept", "Detectability d'"]
    assert [figure.value for figure in found.verdict.figures[:2]] == pytest.approx(
        [100, 100], abs=0.1
    )  # plus 8 HU alone
    assert found.verdict.sentence.startswith(
        "plus8 leaves 100 % of the noise in water at dose 0.5, keeps 100 % of the contrast"
    )
    assert np.array(row[2:8]) - np.array(before[2:8]) == pytest.approx(8, abs=0.01)
    for name in ("report.html", "noise.csv", "transfer.csv", "linearity.csv", "detectability.csv", "evaluation.json"):
        assert (tmp_path / "qa" / name).is_file()
    with pytest.raises(OutputError, match="overwrite"):
        run_qa(QAOptions((weights,), **options))


@pytest.mark.parametrize("doses", [(), (0.0,), (25.0,), (0.5, 0.5)])
def test_doses_out_of_range(tmp_path, doses):
    with pytest.raises(ValueError, match="dose fractions"):
        QAOptions((None,), tmp_path, doses=doses)


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 4 slices"):
        QAOptions((None,), tmp_path, slices=2)
    with pytest.raises(ValueError, match="fits into"):
        ScanSettings(size=100)
    with pytest.raises(ValueError, match="finite HU of shape"):
        evaluate_phantoms({"broken": lambda volume: volume * np.nan}, doses=(1.0,), slices=4, scan=SMALL)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_each_kind_of_lesion_is_looked_for_where_it_is(scanner, scans, kind):
    """Bright spots at the sites of one kind alone: only that one is found."""
    present = scanner.scan(water(scanner), 0.25, 12, stream=7)
    for x, y in sites(scanner)[kind :: len(LESIONS)]:
        present[x - 2 : x + 3, y - 2 : y + 3] += 40
    found = detectabilities(scanner, present, scans[0])
    assert [found[one].d_prime > 3 for one in LESIONS] == [n == kind for n in range(3)]
