"""Which scan belongs to which, over DICOM and NIfTI."""

import unicodedata

import nibabel as nib
import numpy as np
import pytest
from evaluation_files import AFFINE, anatomy, save
from tiny_dicom import dicom_slice

from ct_cncl.pipeline.evaluation.matching import kind_of, locate, match
from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.series import find_scans, read_scan


def dicom(folder, hu, *, patient="NAME", uid="1.2.3", skip=(), **changes):
    """A series of HU (columns, rows, slices) of 0.8 mm pixels, 5 mm apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(hu.shape[2]):
        if k in skip:
            continue
        ds = dicom_slice((hu[..., k].T + 1024).astype(np.uint16), 5.0 * k, 0.8)
        ds.PatientID, ds.SeriesInstanceUID = patient, uid
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def located(path, tmp_path, **options):
    scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return locate(path, PatientFinder(), scratch, **options)


def test_a_dicom_series_and_its_nifti_are_slice_for_slice_the_same_place(tmp_path):
    hu = anatomy()
    series = dicom(tmp_path / "series", hu)
    scan = read_scan(series)
    for number, flips in enumerate(([1, 1, 1], [-1, 1, 1], [1, -1, -1])):
        axes = tuple(slice(None, None, flip) for flip in flips)
        affine = scan.affine.copy()
        for axis, flip in enumerate(flips):
            if flip < 0:
                affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
                affine[:3, axis] *= -1
        save(tmp_path / f"copy{number}" / "NAME_x.nii.gz", scan.hu[axes], affine)
        own = located(series, tmp_path)["denoised"][0]
        other = located(tmp_path / f"copy{number}", tmp_path)["denoised"][0]
        partners = own.grid.partners(other.grid)
        for k, place in enumerate(partners):
            np.testing.assert_array_equal(own.slices.read(k).hu, other.slices.read(place).hu)
        assert match([own], [other], name="copy") == [other]
        assert sorted(partners) == list(range(hu.shape[2]))


def test_a_lacking_dicom_slice_is_one_row_and_the_rest_is_judged(tmp_path):
    hu = anatomy(shape=(72, 64, 5))
    reference = dicom(tmp_path / "full", hu)
    dicom(tmp_path / "result", hu + 5, uid="1.2.4", skip=(2,))
    options = EvaluateOptions(reference, (tmp_path / "result",), tmp_path / "out", windows=("full",))
    found = evaluate_files(options)
    assert [round(row.values.get("rmse", -1)) for row in found.slice_rows] == [5, 5, -1, 5, 5]
    assert "no slice at this place" in found.slice_rows[2].missing["rmse"]
    assert "NAME" not in write_page(found, tmp_path / "report.html").read_text()
    assert "NAME" not in (tmp_path / "out" / "slices.csv").read_text()


def test_another_patient_s_dicom_is_refused_and_not_named(tmp_path):
    dicom(tmp_path / "full", anatomy(), patient="SECRET1")
    dicom(tmp_path / "result", anatomy(), patient="SECRET2", uid="1.2.4")
    one, other = (located(tmp_path / name, tmp_path)["denoised"] for name in ("full", "result"))
    with pytest.raises(DataError, match="another") as refused:
        match(one, other, name="result")
    assert "SECRET" not in str(refused.value)


def test_two_patients_in_one_tree_are_told_apart_by_their_headers(tmp_path):
    for number, patient in enumerate(("B", "A")):
        dicom(tmp_path / "full" / f"x{number}", anatomy(number), patient=patient, uid=f"1.2.{number}")
    for number, patient in enumerate(("A", "B")):  # the other way round
        dicom(tmp_path / "result" / f"y{number}", anatomy(1 - number), patient=patient, uid=f"1.3.{number}")
    reference, results = (located(tmp_path / name, tmp_path)["denoised"] for name in ("full", "result"))
    found = match(reference, results, name="result")
    assert [scan.patient for scan in found] == [scan.patient for scan in reference]
    for own, other in zip(reference, found):
        np.testing.assert_array_equal(own.slices.read(1).hu, other.slices.read(1).hu)


def test_maps_are_told_from_results(tmp_path):
    save(tmp_path / "r" / "a_denoised.nii.gz", anatomy())
    save(tmp_path / "r" / "a_noise.nii.gz", anatomy())
    save(tmp_path / "r" / "a_disagreement.nii.gz", anatomy())
    dicom(tmp_path / "d", anatomy(), ImageType=["DERIVED", "SECONDARY", "AXIAL", "DISAGREEMENT"])
    assert [kind_of(source) for source in find_scans(tmp_path / "r")] == ["denoised", "disagreement", "noise"]
    assert kind_of(find_scans(tmp_path / "d")[0]) == "disagreement"
    found = located(tmp_path / "r", tmp_path, kinds=("denoised", "noise"))
    assert {kind: [scan.name for scan in scans] for kind, scans in found.items()} == {
        "denoised": ["a_denoised.nii.gz"],
        "noise": ["a_noise.nii.gz"],
    }


def test_one_result_for_two_references_is_refused(tmp_path):
    for name in ("p_a", "p_b"):
        save(tmp_path / "full" / f"{name}.nii.gz", anatomy())
    save(tmp_path / "result" / "p.nii.gz", anatomy())
    reference, results = (located(tmp_path / name, tmp_path)["denoised"] for name in ("full", "result"))
    with pytest.raises(DataError, match="one reference scan for p.nii.gz"):
        match(reference, results, name="result")


def test_oblique_slices_and_coronal_ones(tmp_path):
    """What counts is where slices are, not along which stored axis."""
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    affine = turn @ AFFINE
    hu = anatomy()
    save(tmp_path / "full" / "s.nii.gz", hu, affine)
    swapped = np.moveaxis(hu, 2, 0)
    save(tmp_path / "result" / "s.nii.gz", swapped, affine[:, [2, 0, 1, 3]])
    reference, results = (located(tmp_path / name, tmp_path)["denoised"] for name in ("full", "result"))
    assert reference[0].grid.partners(results[0].grid) == [0, 1, 2]
    assert nib.load(tmp_path / "result" / "s.nii.gz").shape == (3, 72, 64)
    np.testing.assert_array_equal(reference[0].slices.read(2).hu, results[0].slices.read(2).hu)


def phases(folder, count, *, uid, change=0, order=None):
    """A series of ``count`` phases, each of its own anatomy, in files whose order says nothing."""
    for phase in range(count):
        hu = anatomy(seed=phase) + change
        for k in range(hu.shape[2]):
            ds = dicom_slice((hu[..., k].T + 1024).astype(np.uint16), 5.0 * k, 0.8)
            ds.SeriesInstanceUID, ds.AcquisitionNumber = uid, phase + 1
            folder.mkdir(exist_ok=True)
            ds.save_as(folder / f"{(order or range(count))[phase]}_{k}.dcm", enforce_file_format=True)
    return folder


def test_phases_are_compared_with_their_own(tmp_path):
    """Regression: every phase was compared with the first one, and a series differed from its copy."""
    reference = phases(tmp_path / "full", 3, uid="1.2.3")
    phases(tmp_path / "result", 3, uid="1.2.4", order=[2, 0, 1])
    own, other = (located(tmp_path / name, tmp_path)["denoised"][0] for name in ("full", "result"))
    partners = own.grid.partners(other.grid)
    assert sorted(partners) == list(range(9))
    for k, place in enumerate(partners):
        np.testing.assert_array_equal(own.slices.read(k).hu, other.slices.read(place).hu)
    options = EvaluateOptions(reference, (tmp_path / "result",), tmp_path / "out", windows=("full",))
    assert [row.values["rmse"] for row in evaluate_files(options).slice_rows] == [0.0] * 9


def test_other_numbers_of_phases_are_no_partners(tmp_path):
    reference = phases(tmp_path / "full", 3, uid="1.2.3")
    one = phases(tmp_path / "result", 1, uid="1.2.4")
    own, other = (located(path, tmp_path)["denoised"] for path in (reference, one))
    assert own[0].grid.partners(other[0].grid) == [None] * 9
    with pytest.raises(DataError, match="3 and 1 slices at one place; evaluate each phase by itself"):
        match(own, other, name="result")


def test_names_in_two_spellings_belong_together(tmp_path):
    """A reference from a Mac, results from elsewhere."""
    for name in ("Müller", "Weiß"):
        save(tmp_path / "full" / f"{unicodedata.normalize('NFD', name)}.nii.gz", anatomy())
        save(tmp_path / "result" / f"{unicodedata.normalize('NFC', name)}_denoised.nii.gz", anatomy())
    reference, results = (located(tmp_path / name, tmp_path)["denoised"] for name in ("full", "result"))
    chosen = match(reference, results, name="result")
    names = [unicodedata.normalize("NFC", scan.name)[:3] for scan in chosen]
    assert names == [unicodedata.normalize("NFC", scan.name)[:3] for scan in reference]
