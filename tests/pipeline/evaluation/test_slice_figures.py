"""Figures of single slices, and means, comparisons and reasons made of them."""

import numpy as np
import pytest
from evaluation_files import anatomy, noisy
from scipy.ndimage import gaussian_filter

from ct_cncl.pipeline.evaluation.measures import measures
from ct_cncl.pipeline.evaluation.record import SliceRow
from ct_cncl.pipeline.evaluation.slice_figures import measure_slice
from ct_cncl.pipeline.evaluation.summary import compare, patient_rows, summarise
from ct_cncl.transforms.common.hu import WINDOWS

WINDOW = {"abdomen": WINDOWS["abdomen"]}


def judged(reference, images, *, region="scan", padded=None, **more):
    padded = np.zeros(reference.shape, dtype=bool) if padded is None else padded
    images = {name: np.asarray(image, np.float32) for name, image in images.items()}
    return measure_slice(
        reference.astype(np.float32), images, padded=padded, windows=WINDOW, region=region, **more
    ).figures


def test_leakage_tells_smoothing_from_sharpening_and_from_honest_removal():
    reference = anatomy()[..., 0]
    low = noisy(reference, 30)
    found = judged(
        reference,
        {"input": low, "honest": reference + 0.3 * (low - reference), "blurred": gaussian_filter(low, 2), "sharp": low + 0.5 * (low - gaussian_filter(low, 2))},
    )  # fmt: skip
    assert abs(found["honest"].values["leakage"]) < 0.05
    assert found["blurred"].values["leakage"] > 0.3
    assert found["sharp"].values["leakage"] < -0.3
    assert found["blurred"].values["leakage_local"] > found["honest"].values["leakage_local"] + 0.3
    assert "leakage" not in found["input"].values


def test_regions_are_the_pixels_they_say():
    reference = anatomy()[..., 0]
    padded = np.zeros(reference.shape, dtype=bool)
    padded[:, :4] = True
    image = reference.copy()
    image[padded] += 300
    image[30:40, 30:40] += 50
    image[0:5, 20:30] += 100  # air in front of the body
    error = (image - reference) ** 2
    found = {
        name: judged(reference, {"c": image}, region=name, padded=padded)["c"].values
        for name in ("scan", "all", "body")
    }
    assert found["all"]["rmse"] == pytest.approx(np.sqrt(error.mean()), rel=1e-5)
    assert found["scan"]["rmse"] == pytest.approx(np.sqrt(error[~padded].mean()), rel=1e-5)
    inside = np.zeros(reference.shape, dtype=bool)
    inside[8:-8, 8:-8] = True
    assert found["body"]["rmse"] == pytest.approx(np.sqrt(error[inside].mean()), rel=0.05)
    assert found["all"]["bias_air"] == pytest.approx(found["scan"]["bias_air"])


def test_noise_and_cnr_are_those_put_in():
    reference = np.random.default_rng(0).normal(50, 4, (96, 96))
    reference[:, :30] -= 150  # fat
    found = judged(reference, {"c": noisy(reference, 20)})["c"].values
    assert found["noise"] == pytest.approx(np.hypot(20, 4), rel=0.1)
    assert found["cnr_fat"] == pytest.approx(150 / found["noise"], rel=0.03)


def test_the_reference_has_noise_and_cnr_of_its_own():
    reference = np.random.default_rng(0).normal(50, 4, (96, 96)).astype(np.float32)
    reference[:, :30] -= 150  # fat
    nowhere = np.zeros(reference.shape, dtype=bool)
    found = measure_slice(
        reference, {"c": noisy(reference, 20).astype(np.float32)}, padded=nowhere, windows=WINDOW, region="scan"
    ).reference.values
    assert set(found) == {"noise", "cnr_fat"}
    assert found["noise"] == pytest.approx(4, rel=0.1)
    assert found["cnr_fat"] == pytest.approx(150 / found["noise"], rel=0.03)


def rows(values, method="candidate1"):
    """One row a value, three slices a patient; None is a figure that is missing."""
    return [
        SliceRow(
            method, f"scan{n // 3}", n % 3, f"patient {n // 3 + 1}",
            {} if value is None else {"rmse": value}, {"rmse": "no such slice"} if value is None else {},
        )
        for n, value in enumerate(values)
    ]  # fmt: skip


RMSE = [m for m in measures(WINDOW, region="scan", with_input=False, with_maps=False) if m.key == "rmse"]


def test_patients_count_alike_however_many_slices_they_have():
    values = [1.0, 1.0, 1.0, 3.0, None, None, *[2.0, 2.0, 2.0] * 4]
    slices = rows(values)
    patients = patient_rows(slices, RMSE, {})
    assert [row.values["rmse"] for row in patients] == [1, 3, 2, 2, 2, 2]
    assert patients[1].counts["rmse"] == 1
    (found,) = summarise(slices, patients, RMSE, seed=0)
    assert (found.over, found.count, found.mean) == ("patients", 6, 2.0)
    assert "missing on 2 of 18 slices: no such slice" in found.note
    few = slices[:9]
    (found,) = summarise(few, patient_rows(few, RMSE, {}), RMSE, seed=0)
    assert (found.over, found.count) == ("slices", 7)
    assert found.mean == pytest.approx(np.mean([1, 1, 1, 3, 2, 2, 2]))


def test_what_no_slice_has_is_no_mean():
    slices = rows([None] * 3)
    patients = patient_rows(slices, RMSE, {})
    assert patients[0].missing["rmse"] == "no such slice"
    (found,) = summarise(slices, patients, RMSE, seed=0)
    assert (found.mean, found.low, found.count, found.note) == (None, None, 0, "no such slice")
    (pair,) = compare(slices, patients, RMSE, [("candidate1", "candidate1")], seed=0)
    assert (pair.difference, pair.count) == (None, 0)


def test_comparisons_pair_the_same_slices_and_leave_out_what_one_lacks():
    """Slices differ by hundreds, methods by 1: unpaired nothing could be told."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 500, 12)
    ours = base - 1 + rng.normal(0, 0.1, 12)
    slices = rows([None, *ours[1:]]) + rows([*base[:11], None], "candidate2")
    patients = patient_rows(slices, RMSE, {})
    (found,) = compare(slices, patients, RMSE, [("candidate1", "candidate2")], seed=0)
    assert found.count == 10
    assert found.difference == pytest.approx((ours - base)[1:11].mean())
    assert -1.2 < found.low < found.high < -0.8
    assert found.share_better == 1.0  # lower is better
