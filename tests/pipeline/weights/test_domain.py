"""What weights were trained on is recorded by training, and what lies outside of it is said when a scan is denoised."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_patches import pairs
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.weights.domain import (
    joint_domain,
    noise_at_doses,
    outside,
    record_domain,
    scan_domain,
    training_domain,
)
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.series import Acquisition

SHAPE = (96, 96, 4)


def tissue(noise, seed=0, mean=40.0):
    return np.random.default_rng(seed).normal(mean, noise, SHAPE).astype(np.float32)


def volume(path, hu, spacing=(0.8, 0.8, 3.0)):
    image = nib.Nifti1Image(np.rint(hu).astype(np.int16), np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path)


def entry(folder, *, low=20.0, full=10.0, **stated):
    folder.mkdir()
    return {
        "image": volume(folder / "image.nii", tissue(low)),
        "label": volume(folder / "label.nii", tissue(full)),
        "dose_fraction": 0.25,
    } | stated


def test_measured_values_are_those_of_the_scan():
    slices = list(np.moveaxis(tissue(17.0), 2, 0))
    found = scan_domain(slices, (0.9, 0.8, 2.5), Acquisition(body_part="CHEST", contrast=True))
    assert found["pixel_mm"] == [0.8, 0.9]
    assert found["slice_mm"] == [2.5, 2.5]
    assert found["noise_hu"][0] == found["noise_hu"][1] == pytest.approx(17.0, rel=0.12)  # a low quantile
    low, high = found["hu"]
    assert (low, high) == (pytest.approx(40 - 3.09 * 17, abs=3), pytest.approx(40 + 3.09 * 17, abs=3))
    assert (found["body_part"], found["contrast"]) == (["CHEST"], [True])


def test_padding_and_scans_without_tissue_say_nothing_of_noise_and_range():
    padded = np.where(np.arange(96)[:, None] < 48, -2000.0, -900.0) * np.ones((96, 96))
    found = scan_domain([padded], (1, 1, 1), None)
    assert found["hu"] == [-900, -900]
    assert not {"noise_hu", "body_part", "contrast"} & set(found)


def test_ranges_and_what_was_seen_come_together():
    found = joint_domain([{"hu": [-1000, 500], "body_part": ["CHEST"]}, {"hu": [-900, 900], "body_part": ["ABDOMEN"]}])
    assert found == {"hu": [-1000, 900], "body_part": ["ABDOMEN", "CHEST"]}


KNOWN = {"noise_hu": [10, 20], "pixel_mm": [0.6, 0.9], "slice_mm": [1, 5], "hu": [-1000, 1500], "body_part": ["ABDOMEN"],
         "contrast": [True]}  # fmt: skip


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        ({"noise_hu": [26, 26]}, "noise of 26 HU lies outside the 10 to 20 HU"),
        ({"noise_hu": [7, 7]}, "noise of 7 HU"),
        ({"pixel_mm": [0.7, 1.2]}, "pixels of 1.2 mm lies outside the 0.6 to 0.9 mm"),
        ({"slice_mm": [0.7, 0.7]}, "slices every 0.7 mm"),
        ({"hu": [-1000, 1800]}, "values from -1000 to 1800 HU exceed the -1000 to 1500 HU"),
        ({"body_part": ["HEAD"]}, "body part HEAD is not in the training data (ABDOMEN)"),
        ({"contrast": [False]}, "contrast none is not in the training data (given)"),
    ],
)
def test_what_lies_outside_is_said(scan, words):
    (warning,) = outside(scan, KNOWN)
    assert words in warning


@pytest.mark.parametrize(
    "scan", [{"noise_hu": [24, 24]}, {"pixel_mm": [0.5, 1.1]}, {"hu": [-1150, 1650]}, {"body_part": ["ABDOMEN"]}, {}]
)
def test_what_lies_inside_or_is_unknown_is_not(scan):
    assert outside(scan, KNOWN) == []
    assert outside(KNOWN, {}) == []


def test_the_noise_of_random_doses_is_that_of_images_at_these_doses():
    rng = np.random.default_rng(0)
    quantum, doses, dose = 8.0, (0.1, 0.8), 0.25
    truth = rng.normal(0, quantum, 400_000)  # a full-dose scan, whose own noise is all quantum noise

    def at(fraction):
        return (truth + rng.normal(0, quantum * np.sqrt(1 / fraction - 1), truth.size)).std()

    found = noise_at_doses(at(dose), truth.std(), dose, doses, noise_free=False)
    assert found == [pytest.approx(at(doses[1]), rel=0.01), pytest.approx(at(doses[0]), rel=0.01)]
    found = noise_at_doses(quantum / np.sqrt(dose), 0.0, dose, doses, noise_free=True)
    assert found == [pytest.approx(quantum / np.sqrt(0.8)), pytest.approx(quantum / np.sqrt(0.1))]


def test_the_domain_of_a_data_set(tmp_path):
    entries = [
        entry(tmp_path / "a", acquisition={"body_part": "CHEST", "contrast": False}),
        entry(tmp_path / "b", low=30.0, acquisition={"kernel": "B30f"}),
    ]
    plain = training_domain(entries)
    assert plain["noise_hu"] == [pytest.approx(20, rel=0.15), pytest.approx(30, rel=0.15)]
    assert plain["slice_mm"] == [3, 3]
    assert (plain["body_part"], plain["contrast"]) == (["CHEST"], [False])
    drawn = training_domain(entries[:1], dose_range=(0.1, 0.5), nested_dose_range=(0.5, 1.0), zoom_range=(0.5, 2.0))
    low, high = plain["noise_hu"][0] / 20 * np.sqrt(100 + 100 * (1 / np.array([0.5, 0.05]) - 1))
    assert drawn["noise_hu"] == [pytest.approx(low, rel=0.1), pytest.approx(high, rel=0.1)]
    assert drawn["pixel_mm"] == [pytest.approx(0.4), pytest.approx(1.6)]


def test_the_dose_of_inputs_relative_to_their_references(tmp_path):
    """Fixed by the config, by the data, 0 where references are noise-free and stay so; unknown where one entry's is."""
    scan, other = entry(tmp_path / "a"), entry(tmp_path / "b", dose_fraction=0.1)
    unknown = entry(tmp_path / "c", dose_fraction=None)
    phantom = entry(tmp_path / "d", provenance={"truth": "noise-free"})

    def found(*entries, **drawn):
        return training_domain(entries, **drawn).get("input_dose")

    assert found(scan) == [0.25, 0.25]
    assert found(scan, other) == [0.1, 0.25]
    assert found(scan, unknown) is None
    assert found(phantom) == [0.0, 0.0]
    assert found(scan, unknown, dose_range=(0.2, 0.2)) == [0.2, 0.2]
    assert found(scan, phantom, dose_range=(0.2, 0.2)) == [0.0, 0.2]
    assert found(scan, phantom, dose_range=(0.2, 0.2), nested_dose_range=(0.1, 1.0)) == [0.2, 0.2]
    assert joint_domain([{"input_dose": [0.25, 0.25]}, {"input_dose": [0.5, 0.5]}]) == {"input_dose": [0.25, 0.5]}


def test_training_records_what_it_saw(tiny_run, tiny_dataset, tmp_path):
    found = json.loads((tiny_run / "trained_on.json").read_text())
    assert found["pixel_mm"] == [pytest.approx(0.7), pytest.approx(0.7)]
    assert found["slice_mm"] == [pytest.approx(5), pytest.approx(5)]
    zoomed = pairs(read_datalist(tiny_dataset)["training"], 16, patches={"zoom_range": [1.0, 2.0]})
    record_domain(tmp_path, SimpleNamespace(data_loader=SimpleNamespace(dataset=zoomed)))
    assert json.loads((tmp_path / "trained_on.json").read_text())["pixel_mm"][0] == pytest.approx(0.35)
    source = tmp_path / "in" / "a.nii"
    source.parent.mkdir()
    volume(source, np.where(np.arange(96)[:, None, None] < 20, -900, tissue(5)), (0.7, 0.7, 9.0))
    denoise_scans(source, tmp_path / "out", weights=tiny_run / "best.pt", strength=0.0, progress=False)
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert any(text.startswith("slices every 9 mm") for text in json.loads(line)["warnings"])


def test_warnings_are_printed_recorded_and_part_of_the_result(tmp_path, capsys):
    weights = scripted(Add(1.0), tmp_path / "w" / "model.ts")
    (tmp_path / "w" / "trained_on.json").write_text(json.dumps(KNOWN))
    write_series(tmp_path / "in", 1, BodyPartExamined="HEAD")
    (result,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=weights, progress=False)
    words = "body part HEAD is not in the training data (ABDOMEN)"
    assert words in capsys.readouterr().err
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert words in json.loads(line)["warnings"]
    for path in result.iterdir():
        ds = pydicom.dcmread(path)
        assert words in ds.DerivationDescription
        assert words in ds.ContributingEquipmentSequence[-1].ContributionDescription
