"""Tissues by label volumes: known biases come back, the reference's noise has no say, and what does not fit is named."""

import json

import numpy as np
import pytest
from evaluation_files import AFFINE, anatomy, save
from scipy.ndimage import binary_erosion
from tiny_dicom import dicom_slice

from ct_cncl.pipeline.evaluation.labels import read_classes
from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.pipeline.metrics.tissue import PHANTOM_CLASSES
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.phantom import TISSUES, anatomical_phantom

BIASES = {"air": -3, "lung": 5, "fat": -11, "soft tissue": 2, "bone": 40}
NAMES = {"body": 1, "inserts": [2, 3]}


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Tables are enough here; charts take most of the time of a tiny evaluation."""
    monkeypatch.setattr("ct_cncl.pipeline.report.evaluation_page.write_page", lambda *_: None)


@pytest.fixture(scope="module")
def phantom():
    """HU and labels of two slices, and their affine."""
    made = anatomical_phantom(5, slices=2, size=224, region="abdomen")
    return np.rint(made.hu), made.labels, made.affine


def evaluate(root, **options):
    settings = {"labels": root / "labels", "windows": ("full",)} | options
    return evaluate_files(EvaluateOptions(root / "full", (root / "result",), root / "out", **settings))


def summary(found, measure):
    return next(row for row in found.summaries if (row.method, row.measure) == ("candidate1", measure))


def blocks(shape=(72, 64, 3)):
    """Labels 1 (body) with 2 and 3 inside it, 0 around."""
    labels = np.zeros(shape, np.uint8)
    labels[8:-8, 8:-8] = 1
    labels[14:30, 20:44] = 2
    labels[40:60, 20:44] = 3
    return labels


def named(root, content=None):
    path = root / "names.json"
    path.write_text(json.dumps(NAMES if content is None else content))
    return path


def biased(labels, wrong=300):
    """What is added to the reference: each tissue's bias, and nonsense on unlabelled pixels and within 2 pixels of borders."""
    added = np.full(labels.shape, wrong)
    for name, numbers in PHANTOM_CLASSES.items():
        for z in range(labels.shape[2]):
            inside = binary_erosion(np.isin(labels[..., z], numbers), np.ones((5, 5)), border_value=1)
            added[..., z][inside] = BIASES[name]
    return added


def test_a_known_bias_of_each_tissue_of_a_phantom_is_recovered_exactly(tmp_path, phantom):
    hu, labels, affine = phantom
    save(tmp_path / "full" / "p_scan.nii.gz", hu, affine)
    save(tmp_path / "result" / "p_scan.nii.gz", hu + biased(labels), affine)
    save(tmp_path / "labels" / "p_scan_tissues.nii.gz", labels, affine, dtype=np.uint8)
    found = evaluate(tmp_path)
    for name, bias in BIASES.items():
        key = name.replace(" ", "_")
        assert summary(found, f"bias_{key}").mean == pytest.approx(bias, abs=1e-9)
        assert summary(found, f"std_{key}").mean == pytest.approx(0, abs=1e-9)
    assert found.measure("bias_bone").conditions == f"labels {TISSUES['bone']}, borders taken off"
    chart = next(one for one in found.charts if one.key == "tissue_bias")
    assert list(chart.curves[0].y) == list(BIASES.values())
    assert chart.note.startswith("Classes by labels")
    assert "p_scan" not in found.provenance.constants["tissues"]
    assert found.provenance.constants["tissues"].startswith("labels of labels: air 0 + 6 + 16, lung 5, ")


def test_noise_in_the_reference_does_not_bias_it(tmp_path, phantom):
    """Classes by HU would lose noisy pixels; by labels the same pixels count however noisy the reference is."""
    hu, labels, affine = phantom
    reference = np.rint(hu + np.random.default_rng(0).normal(0, 60, hu.shape))
    save(tmp_path / "full" / "p_scan.nii.gz", reference, affine)
    save(tmp_path / "result" / "p_scan.nii.gz", hu + biased(labels), affine)
    save(tmp_path / "labels" / "p_scan.nii.gz", labels, affine, dtype=np.uint8)
    found = evaluate(tmp_path)
    for name, bias in BIASES.items():
        row = summary(found, f"bias_{name.replace(' ', '_')}")
        inside = [binary_erosion(np.isin(labels[..., z], PHANTOM_CLASSES[name]), np.ones((5, 5)), border_value=1) for z in range(2)]  # fmt: skip
        expected = [(hu - reference)[..., z][inside[z]].mean() + bias for z in range(2) if inside[z].sum() >= 50]
        assert row.mean == pytest.approx(np.mean(expected), abs=1e-6)
        pixels = min(m.sum() for m in inside if m.sum() >= 50)
        assert row.mean == pytest.approx(bias, abs=4 * 60 / np.sqrt(pixels))


def test_own_names_and_axes_stored_the_other_way_round(tmp_path):
    reference, labels = anatomy(), blocks()
    turned = np.diag([0.8, -0.8, 5.0, 1.0])
    turned[0, 3] = -0.8 * (reference.shape[0] - 1)
    save(tmp_path / "full" / "scan.nii.gz", reference)
    save(tmp_path / "result" / "scan.nii.gz", reference + 7 * (labels > 1))
    save(tmp_path / "labels" / "segmentation.nii.gz", labels[::-1], turned, dtype=np.uint8)
    found = evaluate(tmp_path, label_names=named(tmp_path))
    assert (summary(found, "bias_body").mean, summary(found, "bias_inserts").mean) == (0, 7)
    assert [one.key for one in found.measures if one.group == "tissue"] == [
        "bias_body", "std_body", "bias_inserts", "std_inserts",
    ]  # fmt: skip
    assert found.measure("bias_inserts").conditions == "labels 2, 3, borders taken off"
    assert "largest HU bias +7.0 in inserts" in found.summary[0]


def test_labels_in_dicom(tmp_path):
    reference, labels = anatomy(), blocks()
    for folder, values, intercept in (
        ("full", reference + 1024, -1024),
        ("result", reference + 1021, -1024),
        ("labels", labels, 0),
    ):
        (tmp_path / folder).mkdir()
        for k in range(reference.shape[2]):
            ds = dicom_slice(values[..., k].T.astype(np.uint16), 5.0 * k, 0.8)
            ds.PatientID, ds.SeriesInstanceUID, ds.RescaleIntercept = "NAME", f"1.2.{len(folder)}", intercept
            ds.save_as(tmp_path / folder / f"{k}.dcm", enforce_file_format=True)
    found = evaluate(tmp_path, label_names=named(tmp_path))
    assert (summary(found, "bias_body").mean, summary(found, "bias_inserts").mean) == (-3, -3)


def test_empty_classes_missing_slices_and_nan_are_rows_with_a_reason(tmp_path):
    labels = blocks().astype(np.float32)
    labels[..., 0][labels[..., 0] == 3] = 1
    labels[0, 0, 1] = np.nan
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy() + 3)
    save(tmp_path / "labels" / "scan.nii.gz", labels[..., :2], dtype=np.float32)
    found = evaluate(tmp_path, label_names=named(tmp_path, {"body": 1, "third": 3}))
    empty, broken, lacking = (row for row in found.slice_rows if row.method == "candidate1")
    assert empty.values["bias_body"] == 3
    assert empty.missing["bias_third"] == "no pixels of third"
    assert "labels: " in broken.missing["bias_body"]
    assert "NaN" in broken.missing["bias_body"]
    assert lacking.missing["std_third"] == "labels: no slice at this place"
    assert all(row.values["rmse"] == pytest.approx(3) for row in (empty, broken, lacking))
    assert summary(found, "bias_third").mean is None
    assert any("without a name count for no tissue: 2" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("labels", "affine", "words"),
    [
        (blocks()[:-2], AFFINE, "of the labels to have the geometry of scan.nii.gz.*72 x 64 and 70 x 64 pixels"),
        (blocks(), np.diag([-0.7, -0.7, 5.0, 1.0]), "0.8 x 0.8 and 0.7 x 0.7 mm"),
        (blocks() + 100, AFFINE, r"labels of anatomical phantoms, 0 to 19, in labels, but got 100, 101.*--label-names"),
        (blocks() * 0.5, AFFINE, "whole numbers of 0 or more as labels, but got 0.5 in scan_labels.nii.gz"),
        (anatomy(), AFFINE, "whole numbers of 0 or more as labels, but got -"),
    ],
)
def test_labels_that_do_not_belong_are_refused_by_name(tmp_path, labels, affine, words):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy() + 1)
    save(tmp_path / "labels" / "scan_labels.nii.gz", labels, affine, dtype=np.float32)
    with pytest.raises(DataError, match=words):
        evaluate(tmp_path)
    assert not (tmp_path / "out").exists()


def test_names_of_which_no_label_is_there_are_refused(tmp_path):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy() + 1)
    save(tmp_path / "labels" / "scan.nii.gz", blocks(), dtype=np.uint8)
    with pytest.raises(DataError, match="labels that names.json names.*only 0, 1, 2, 3"):
        evaluate(tmp_path, label_names=named(tmp_path, {"liver": 9}))
    with pytest.raises(ValueError, match="Add --labels"):
        evaluate(tmp_path, labels=None, label_names=named(tmp_path))


def test_nothing_but_0_is_enough_where_0_has_a_name(tmp_path):
    save(tmp_path / "full" / "scan.nii.gz", anatomy())
    save(tmp_path / "result" / "scan.nii.gz", anatomy() + 1)
    save(tmp_path / "labels" / "scan.nii.gz", np.zeros_like(blocks()), dtype=np.uint8)
    found = evaluate(tmp_path, label_names=named(tmp_path, {"all of it": 0, "liver": 5}))
    assert summary(found, "bias_all_of_it").mean == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "to be JSON"),
        ("[1, 2]", "names and numbers"),
        ("{}", "names and numbers"),
        ('{"liver": 1.5}', "whole numbers of 0 or more for 'liver'"),
        ('{"1": "liver"}', "whole numbers of 0 or more for '1'"),
        ('{"liver": true}', "whole numbers"),
        ('{"liver": [4, -1]}', "whole numbers"),
        ('{"liver": []}', "whole numbers"),
        ('{"soft tissue": 1, "soft_tissue": 2}', "two are alike"),
        ('{" ": 1}', "one is empty"),
    ],
)
def test_names_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_classes(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_classes(tmp_path / "none.json")
