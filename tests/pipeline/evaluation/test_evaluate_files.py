"""Evaluations of files from end to end: figures by independent means, matching, bad input."""

import csv

import numpy as np
import pytest
from evaluation_files import AFFINE, anatomy, noisy, save, three_patients
from skimage.metrics import peak_signal_noise_ratio

from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.pipeline.evaluation.tables import as_text
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.transforms.common.errors import DataError, OutputError
from ct_cncl.transforms.series import ScanError


def evaluate(root, *, candidates=("denoised",), **options):
    settings = {"input": root / "low", "windows": ("full", "abdomen")} | options
    folders = tuple(root / name for name in candidates)
    return evaluate_files(EvaluateOptions(root / "full", folders, root / "out", **settings))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """An evaluation of three patients, and where its files are."""
    root = three_patients(tmp_path_factory.mktemp("three"))
    return evaluate(root), root


def rows_of(found, method):
    return [row for row in found.slice_rows if row.method == method]


def summary(found, method, measure):
    return next(row for row in found.summaries if (row.method, row.measure) == (method, measure))


def test_every_slice_has_every_figure_or_a_reason(three):
    found, _ = three
    assert len(found.slice_rows) == 2 * 9
    keys = {one.key for one in found.measures} - {"nps_distance", "nps_peak", "nps_mean"}
    for row in found.slice_rows:
        assert set(row.values) | set(row.missing) == keys
        assert not set(row.values) & set(row.missing)
        assert np.isfinite(list(row.values.values())).all()
    assert all("no pixels of lung" in row.missing["bias_lung"] for row in found.slice_rows)
    assert {row.patient for row in found.slice_rows} == {"patient 1", "patient 2", "patient 3"}


def test_figures_are_those_of_numpy_and_scikit_image(three):
    found, _ = three
    reference, low = anatomy(1), noisy(anatomy(1), 30, 11)
    result = np.rint((reference + low) / 2)
    row = next(row for row in rows_of(found, "candidate1") if row.patient == "patient 2" and row.slice == 1)
    error = (result - reference)[..., 1]
    assert row.values["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert row.values["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    wanted, shown = (np.clip(hu[..., 1], -150, 250) for hu in (reference, result))
    expected = peak_signal_noise_ratio(wanted, shown, data_range=400)
    assert row.values["psnr_abdomen"] == pytest.approx(expected, abs=1e-4)
    assert row.values["psnr_full"] == pytest.approx(
        20 * np.log10(4096 / row.values["rmse"]), abs=1e-4
    )  # nothing cut off
    gain = next(one for one in found.comparisons if one.measure == "psnr_full")
    assert gain.difference == pytest.approx(6.02, abs=0.1)  # half of the noise
    assert (gain.first, gain.second, gain.share_better) == ("candidate1", "input", 1.0)
    assert summary(found, "candidate1", "nps_distance").over == "patients"
    # the reference has 4 HU of its own, the input 30 more, the result 15
    assert summary(found, "candidate1", "noise").mean == pytest.approx(np.hypot(15, 4), rel=0.08)
    assert summary(found, "input", "noise").mean == pytest.approx(np.hypot(30, 4), rel=0.08)


def test_the_reference_has_its_own_noise_and_cnr_beside_the_methods(three):
    """It has 4 HU, the input 30 more: the noise between a result and the reference is what there is to gain."""
    found, _ = three
    own = {row.measure for row in found.summaries if row.method == "reference"}
    assert own == {"noise", "cnr_fat", "nps_peak", "nps_mean"}
    assert summary(found, "reference", "noise").mean == pytest.approx(4, rel=0.08)
    assert summary(found, "reference", "cnr_fat").note == summary(found, "input", "cnr_fat").note != ""  # no fat in it
    lines = as_text(found).splitlines()
    assert lines[0].split() == ["reference", "input", "denoised", "better"]
    (noise,) = [line for line in lines if line.startswith("Noise")]
    assert float(noise.split()[2].split("(")[0]) == pytest.approx(4, rel=0.08)
    assert next(line for line in lines if line.startswith("PSNR full")).endswith("higher")
    assert "(the reference has 4." in found.summary[0] or "(the reference has 3." in found.summary[0]


def test_few_patients_are_averaged_over_slices_and_that_is_said(three):
    found, root = three
    row = summary(found, "candidate1", "psnr_full")
    assert (row.over, row.count) == ("slices", 9)
    assert row.mean == pytest.approx(np.mean([one.values["psnr_full"] for one in rows_of(found, "candidate1")]))
    assert row.low < row.mean < row.high
    assert any("3 patients: intervals are over slices" in text for text in found.warnings)
    texts = (root / "out" / "summary.csv").read_text()
    assert "window abdomen 50/400 HU, range 400 HU" in texts
    assert "over" in texts.splitlines()[0]


def test_tables_hold_what_was_found_and_the_page_is_there(three):
    found, root = three
    with (root / "out" / "slices.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 18
    column = found.measure("rmse").header
    own = [float(row[column]) for row in table if row["method"] == "denoised"]
    assert own == pytest.approx([row.values["rmse"] for row in rows_of(found, "candidate1")])
    assert all("nan" not in value.lower() for row in table for value in row.values())
    assert {row["scan"] for row in table} == {f"p{n}_scan.nii.gz" for n in (1, 2, 3)}
    page = write_page(found, root / "report.html").read_text(encoding="utf-8")
    assert "denoised" in page
    assert len(page) > 10_000
    assert len(found.slices) == 9
    assert {"reference", "input", "candidate1"} == set(found.slices[0].images)


def test_many_patients_are_averaged_over_patients(tmp_path):
    root = three_patients(tmp_path, [f"p{n}_scan" for n in range(6)])
    row = summary(evaluate(root, windows=("full",)), "candidate1", "rmse")
    assert (row.over, row.count) == ("patients", 6)
    assert row.low < row.mean < row.high


def test_an_earlier_evaluation_is_kept_unless_asked(three):
    _, root = three
    with pytest.raises(OutputError, match="overwrite"):
        evaluate(root)


def test_matching_does_not_depend_on_names_orders_or_orientation_where_it_is_certain(tmp_path):
    """One scan each: turned axes and another name are the same scan."""
    reference = anatomy()
    save(tmp_path / "full" / "scan.nii.gz", reference)
    turned = np.diag([0.8, -0.8, 5.0, 1.0])
    turned[0, 3] = -0.8 * (reference.shape[0] - 1)
    save(tmp_path / "result" / "other.nii.gz", (reference + 7)[::-1], turned)
    found = evaluate(tmp_path, candidates=("result",), input=None)
    assert summary(found, "candidate1", "rmse").mean == pytest.approx(7)
    assert summary(found, "candidate1", "bias_soft_tissue").mean == pytest.approx(7)


@pytest.mark.parametrize(
    ("hu", "affine", "words"),
    [
        (anatomy()[:-2], AFFINE, "72 x 64 and 70 x 64 pixels"),
        (anatomy(), np.diag([-0.7, -0.7, 5.0, 1.0]), "0.8 x 0.8 and 0.7 x 0.7 mm"),
        (anatomy(), AFFINE + np.eye(4)[:, [3]] * [0, 0, 0, 1] * 0 + np.array([[0, 0, 0, 3.0]] + [[0] * 4] * 3), "3 mm apart"),
        (anatomy(), np.diag([-0.8, -0.8, -5.0, 1.0]) - np.array([[0] * 4] * 2 + [[0, 0, 0, 2.0]] + [[0] * 4]), "apart"),
    ],
)  # fmt: skip
def test_another_geometry_is_refused_by_name(tmp_path, hu, affine, words):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan_denoised.nii.gz", hu, affine)
    with pytest.raises(DataError, match=words) as refused:
        evaluate(tmp_path, candidates=("result",), input=None)
    assert "scan_denoised.nii.gz" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_another_patient_or_none_is_refused(tmp_path):
    root = three_patients(tmp_path)
    save(root / "others" / "q1_scan.nii.gz", anatomy())
    save(root / "others" / "q2_scan.nii.gz", anatomy())
    with pytest.raises(DataError, match="p1_scan.nii.gz.*patient or name"):
        evaluate(root, candidates=("others",))
    for number in (1, 2, 3):
        save(root / "twice" / f"p{number}_scan_a.nii.gz", anatomy())
        save(root / "twice" / f"p{number}_scan_b.nii.gz", anatomy())
    with pytest.raises(DataError, match="p1_scan_a.nii.gz, p1_scan_b.nii.gz"):
        evaluate(root, candidates=("twice",))


def test_a_table_says_whose_scans_are(tmp_path):
    root = three_patients(tmp_path, ["x1", "x2"])
    (root / "table.csv").write_text(
        "file,patient\nx1.nii.gz,A\nx2.nii.gz,A\nx1_denoised.nii.gz,A\nx2_denoised.nii.gz,A\n"
    )
    found = evaluate(root, patients=root / "table.csv", windows=("full",))
    assert {row.patient for row in found.patient_rows} == {"patient 1"}
    (root / "table.csv").write_text(
        "file,patient\nx1.nii.gz,A\nx2.nii.gz,B\nx1_denoised.nii.gz,C\nx2_denoised.nii.gz,C\n"
    )
    with pytest.raises(DataError, match="patient of x1.nii.gz"):
        evaluate(root, patients=root / "table.csv", windows=("full",), overwrite=True)


def test_missing_slices_constant_ones_and_nan_are_said_and_leave_the_mean_alone(tmp_path):
    reference = anatomy(shape=(72, 64, 5))
    result = (reference + 3).astype(np.float32)
    result[..., 1] = np.nan
    result[..., 2] = -1000
    save(tmp_path / "full" / "scan.nii.gz", reference)
    save(tmp_path / "result" / "scan_denoised.nii.gz", result[..., :4], dtype=np.float32)
    found = evaluate(tmp_path, candidates=("result",), input=None)
    rows = rows_of(found, "candidate1")
    assert [bool(row.values) for row in rows] == [True, False, False, True, False]
    assert "NaN" in rows[1].missing["rmse"]
    assert "constant, -1000 HU" in rows[2].missing["psnr_full"]
    assert "no slice at this place" in rows[4].missing["ssim_abdomen"]
    row = summary(found, "candidate1", "rmse")
    assert (row.mean, row.count) == (pytest.approx(3), 2)
    assert "missing on 3 of 5 slices" in row.note
    assert any("1 of 5 slices are missing" in text for text in found.warnings)
    text = (tmp_path / "out" / "slices.csv").read_text()
    assert text.count("not computed: no slice at this place") > 10
    assert "nan," not in text


def test_a_reference_that_is_broken_or_constant_judges_nobody(tmp_path):
    reference = anatomy(shape=(72, 64, 4)).astype(np.float32)
    result = reference + 3
    reference[3, 3, 0] = np.nan
    reference[..., 2] = -1024
    save(tmp_path / "full" / "scan.nii.gz", reference, dtype=np.float32)
    save(tmp_path / "result" / "scan.nii.gz", result)
    found = evaluate(tmp_path, candidates=("result",), input=None)
    rows = rows_of(found, "candidate1")
    assert [bool(row.values) for row in rows] == [False, True, False, True]
    assert rows[0].missing["psnr_full"].startswith("the reference: ")
    assert "NaN" in rows[0].missing["psnr_full"]
    assert rows[2].missing["bias_bone"] == "the reference: the image is constant, -1024 HU"
    assert summary(found, "candidate1", "rmse").mean == pytest.approx(3)


def test_slices_of_a_few_pixels_judge_nobody(tmp_path):
    """They ended the whole evaluation, without a name."""
    narrow = np.random.default_rng(0).normal(0, 300, (64, 5, 2)).astype(np.float32)
    for folder in ("full", "result"):
        save(tmp_path / folder / "a.nii.gz", anatomy(shape=(72, 64, 2)).astype(np.float32), dtype=np.float32)
        save(tmp_path / folder / "b.nii.gz", narrow, dtype=np.float32)
    found = evaluate(tmp_path, candidates=("result",), input=None)
    rows = rows_of(found, "candidate1")
    assert [bool(row.values) for row in rows] == [True, True, False, False]
    assert "expected slices with sides of at least 7 pixels, but got" in rows[2].missing["psnr_full"]


def test_candidates_are_compared_with_the_input_and_with_each_other(tmp_path):
    root = three_patients(tmp_path)
    for number in range(3):
        name = f"p{number + 1}_scan.nii.gz"
        save(
            root / "better" / name,
            np.rint(anatomy(number) + (noisy(anatomy(number), 30, 10 + number) - anatomy(number)) / 5),
        )
    found = evaluate(root, candidates=("denoised", "better"), windows=("full",), names=("half", "fifth"))
    pairs = {(row.first, row.second): row for row in found.comparisons if row.measure == "rmse"}
    assert set(pairs) == {("candidate1", "input"), ("candidate2", "input"), ("candidate1", "candidate2")}
    half, fifth = (
        np.array([row.values["rmse"] for row in rows_of(found, key)]) for key in ("candidate1", "candidate2")
    )
    between = pairs["candidate1", "candidate2"]
    assert between.difference == pytest.approx((half - fifth).mean())
    assert (between.count, between.share_better) == (9, 0.0)
    assert 0 < between.low < between.difference < between.high
    table = (root / "out" / "comparisons.csv").read_text()
    assert "\nhalf,fifth,RMSE,HU,no window" in table
    assert found.summary[-1].startswith("Highest PSNR full: fifth.")


def test_slices_without_a_body_or_soft_tissue_say_so(tmp_path):
    reference = anatomy()
    reference[..., 1] = np.rint(np.random.default_rng(0).normal(-1000, 5, reference.shape[:2]))  # above the patient
    save(tmp_path / "full" / "scan.nii.gz", reference)
    save(tmp_path / "result" / "scan.nii.gz", reference + 2)
    found = evaluate(tmp_path, candidates=("result",), input=None, region="body")
    empty = rows_of(found, "candidate1")[1]
    assert "empty" in empty.missing["rmse"]
    assert "no uniform soft tissue" in empty.missing["noise"]
    assert "no pixels of bone" in empty.missing["bias_bone"]
    assert empty.values["bias_air"] == pytest.approx(2)
    assert summary(found, "candidate1", "rmse").mean == pytest.approx(2)


def test_equal_images_have_no_infinite_mean(tmp_path):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy())
    found = evaluate(tmp_path, candidates=("result",), input=None)
    row = summary(found, "candidate1", "psnr_full")
    assert row.mean is None
    assert "equal images" in row.note
    assert summary(found, "candidate1", "ssim_full").mean == pytest.approx(1)


def test_stored_values_without_rescale_are_refused_by_name(tmp_path):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy() + 1024)
    with pytest.raises(DataError, match=r"scan.nii.gz.*without rescale"):
        evaluate(tmp_path, candidates=("result",), input=None)
    with pytest.raises(ScanError):
        evaluate(tmp_path, candidates=("nothing",), input=None)


def test_disagreement_maps_beside_a_result_are_used(tmp_path):
    root = three_patients(tmp_path, ["p1_scan"])
    reference = anatomy(0)
    result = np.rint((reference + noisy(reference, 30, 10)) / 2)
    save(root / "denoised" / "p1_scan_disagreement.nii.gz", np.abs(result - reference))
    save(root / "denoised" / "p1_scan_noise.nii.gz", result - reference)
    found = evaluate(root)
    assert summary(found, "candidate1", "disagreement").mean == pytest.approx(1)
    chart = next(chart for chart in found.charts if chart.key == "calibration")
    assert chart.curves[0].y == pytest.approx(chart.curves[0].x, abs=1e-3)
    assert set(found.slices[0].maps["candidate1"]) == {"noise", "disagreement"}


@pytest.mark.parametrize("window", ["liver", "x=1", "x=50/0", "x=a/b"])
def test_unknown_windows(tmp_path, window):
    with pytest.raises(ValueError, match="Expected a window"):
        evaluate(tmp_path, windows=(window,))


def test_own_windows_and_names(tmp_path):
    root = three_patients(tmp_path, ["p1_scan"])
    found = evaluate(root, windows=("liver=60/160",), names=("ours",))
    assert found.measure("psnr_liver").conditions.startswith("window liver 60/160 HU, range 160 HU")
    assert found.method("candidate1").name == "ours"
