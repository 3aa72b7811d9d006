"""Real pairs found in folders: the layouts of the Grand Challenge and of TCIA, and any two trees."""

import zlib

import nibabel as nib
import numpy as np
import pytest
from tiny_dicom import dicom_slice

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.paired_cases import paired_cases, scans_in_one_place, scans_in_two_places
from ct_cncl.transforms.dataset.patients import PatientFinder

PIXEL = 0.7


def series(folder, patient, number, *, seed, shift=0, places=range(3), kernel="B30f", frame="1.9", **changes):
    """A DICOM series of random HU, the same for the same seed but for ``shift``; returns HU (columns, rows, slices)."""
    folder.mkdir(parents=True)
    hu = np.random.default_rng(seed).integers(-1000, 800, (len(places), 8, 6)) + shift
    uid = f"1.2.{zlib.crc32('/'.join(folder.parts[-3:]).encode())}"  # its own, and the same in every run
    for k, place in enumerate(places):
        ds = dicom_slice(hu[k] + 1024, 2.0 * place, PIXEL)
        ds.SeriesInstanceUID, ds.PatientID, ds.SeriesNumber = uid, patient, number
        ds.ConvolutionKernel, ds.FrameOfReferenceUID = kernel, frame
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.save_as(folder / f"{k:04d}.IMA", enforce_file_format=True)
    return hu.transpose(2, 1, 0)


def cases_of(trees, **options):
    return paired_cases(trees, patients=PatientFinder(), dose_fraction=0.25, **options)


def check(case, full, low):
    pair = case.make()
    np.testing.assert_array_equal(pair.label, full)
    np.testing.assert_array_equal(pair.image, low)


def mayo(root, patients=("L067", "L096"), **changes):
    """1 mm and 3 mm, the latter with two kernels, in every patient's folder; returns (full, low) HU by patient and name."""
    expected = {}
    for p, patient in enumerate(patients):
        for number, (name, kernel) in enumerate([("1mm", "B30f"), ("3mm", "B30f"), ("3mm_sharp", "D45f")]):
            places = range(4) if name == "1mm" else range(3)
            options = {"seed": 10 * p + number, "places": places, "kernel": kernel, "frame": f"1.9.{p}"} | changes
            expected[patient, name] = tuple(
                series(
                    root / patient / f"{dose}_{name}", f"{patient}_{code}_{number}_1", number, shift=shift, **options
                )
                for dose, code, shift in (("full", "FD", 0), ("quarter", "QD", 7))
            )
    return expected


def test_the_grand_challenges_folders(tmp_path):
    """PatientIDs that number the scans are one patient; kernels and folder names tell the reconstructions apart."""
    expected = mayo(tmp_path)
    trees = scans_in_one_place([[tmp_path]])
    assert trees.others == []
    (cases,) = cases_of(trees)
    assert [case.patient for case in cases] == ["L067"] * 3 + ["L096"] * 3
    for case in cases:
        name = case.source.removeprefix("full_").rpartition("_series")[0]
        check(case, *expected[case.patient, name])
        assert case.dose_fraction == 0.25
        assert case.make().acquisition.kernel == ("D45f" if "sharp" in name else "B30f")


def test_its_folders_pair_without_kernels_in_the_headers(tmp_path):
    expected = mayo(tmp_path, ["L067"], kernel="")
    (cases,) = cases_of(scans_in_one_place([[tmp_path]]))
    for case in cases:
        check(case, *expected["L067", case.source.removeprefix("full_").rpartition("_series")[0]])


def test_its_folders_by_dose_first(tmp_path):
    """As they are distributed: 3mm B30/FD_3mm/L067/full_3mm, where sharp ones are called full_3mm too."""
    expected = {}
    for group, name in (("3mm B30", "3mm"), ("3mm D45", "3mm_sharp")):
        for dose, code, shift in (("full", "FD", 0), ("quarter", "QD", 5)):
            folder = tmp_path / group / f"{code}_{name}" / "L067" / f"{dose}_3mm"
            expected[group, dose] = series(folder, "L067", 1, seed=len(name), shift=shift, kernel="")
    (cases,) = cases_of(scans_in_one_place([[tmp_path]]))
    assert len(cases) == 2
    for case, group in zip(cases, ("3mm B30", "3mm D45")):
        check(case, expected[group, "full"], expected[group, "quarter"])


def tcia(root, patient, seed, **low):
    """LDCT-and-Projection-data: one study, series named by descriptions, projections among them."""
    study = root / "LDCT-and-Projection-data" / patient / "08-23-2018-75696"
    full = series(study / "1.000000-NA-67226", patient, 1, seed=seed, SeriesDescription="Full dose images")
    quarter = series(
        study / "1.000000-NA-07574", patient, 1, seed=seed, shift=3, SeriesDescription="Low Dose Images", **low
    )
    projection = study / "1.000000-NA-92402"
    projection.mkdir()
    ds = dicom_slice(np.zeros((4, 4), int), 0.0, PIXEL)
    ds.SeriesInstanceUID, ds.PatientID, ds.SeriesDescription = f"1.7.{seed}", patient, "Full dose projections"
    del ds.ImagePositionPatient
    ds.private_block(0x7029, "Dose", create=True).add_new(0x10, "US", 64)
    ds.save_as(projection / "1-0001.dcm", enforce_file_format=True)
    return full, quarter


def test_tcias_folders(tmp_path):
    expected = {patient: tcia(tmp_path, patient, seed) for seed, patient in enumerate(["C001", "L004", "N005"])}
    (cases,) = cases_of(scans_in_one_place([[tmp_path]]))
    assert [case.patient for case in cases] == ["C001", "L004", "N005"]
    for case in cases:
        check(case, *expected[case.patient])


def test_two_trees_and_their_groups(tmp_path):
    expected = {}
    for seed, patient in enumerate(["P1", "P2", "P3"]):
        folder = "val" if patient == "P2" else "train"
        full = series(tmp_path / folder / patient, patient, 1, seed=seed)
        expected[patient] = full, series(tmp_path / "low" / patient, patient, 9, seed=seed, shift=9)
    training, validation = cases_of(scans_in_two_places([tmp_path / "low"], [[tmp_path / "train"], [tmp_path / "val"]]))
    assert [case.patient for case in training] == ["P1", "P3"]
    assert [case.patient for case in validation] == ["P2"]
    for case in training + validation:
        check(case, *expected[case.patient])


def test_a_scan_that_says_no_dose_is_left_out_and_named(tmp_path):
    mayo(tmp_path, ["L067"])
    series(tmp_path / "L067" / "mpr", "L067", 7, seed=9)
    trees = scans_in_one_place([[tmp_path]])
    assert trees.others == ["L067/mpr/mpr_series007"]
    assert [len(cases) for cases in cases_of(trees)] == [3]


@pytest.mark.parametrize(("dose", "missing"), [("full", "low"), ("quarter", "full")])
def test_a_tree_of_one_dose_is_refused(tmp_path, dose, missing):
    series(tmp_path / "L067" / f"{dose}_1mm", "L067", 1, seed=0)
    with pytest.raises(
        DataError, match=f"Expected {missing}-dose scans in .*no series description or folder name of its 1 scan"
    ):
        scans_in_one_place([[tmp_path]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"places": [0, 1]}, "Only 2 of its 3 slices lie at the position of one of the other's 2"),
        ({"places": [0, 1, 3, 4]}, "1 missing, the first between"),
        ({"places": [0, 1, 1]}, "expected one slice at each position but got two"),
        ({"places": [1, 2, 3]}, "entries differ by up to 2 mm. Only 2 of its 3"),
        ({"frame": "1.8"}, "share a frame of reference"),
        ({"kernel": "D45f"}, "the same kernel, but got B30f and D45f"),
    ],
)
def test_incomplete_pairs_are_refused_and_named(tmp_path, change, words):
    series(tmp_path / "L067" / "full_1mm", "L067", 1, seed=0)
    series(tmp_path / "L067" / "quarter_1mm", "L067", 2, **{"seed": 0} | change)
    with pytest.raises(DataError) as caught:
        cases_of(scans_in_one_place([[tmp_path]]))
    assert words in str(caught.value)
    assert "L067/quarter_1mm/quarter_1mm_series002" in str(caught.value)


def test_second_copies_of_an_image_are_refused(tmp_path):
    series(tmp_path / "full", "L067", 1, seed=0)
    series(tmp_path / "quarter", "L067", 2, seed=0)
    (tmp_path / "quarter" / "again.IMA").write_bytes((tmp_path / "quarter" / "0001.IMA").read_bytes())
    with pytest.raises(DataError, match=r"quarter\S+ to be a volume, but: second copies of 1 image\."):
        cases_of(scans_in_one_place([[tmp_path]]))


def test_frames_may_differ_where_the_user_says_so(tmp_path):
    full = series(tmp_path / "full", "L067", 1, seed=0)
    low = series(tmp_path / "quarter", "L067", 2, seed=0, shift=4, frame="1.8")
    ((case,),) = cases_of(scans_in_one_place([[tmp_path]]), across_frames=True)
    check(case, full, low)


def test_two_scans_of_one_dose_that_nothing_tells_apart_are_refused(tmp_path):
    series(tmp_path / "full_a", "L067", 1, seed=0)
    for name in ("quarter_b", "quarter_c"):
        series(tmp_path / name, "L067", 2, seed=0)
    with pytest.raises(DataError, match=r"one low-dose partner for full_a.*, but quarter_b\S+, quarter_c\S+ all"):
        cases_of(scans_in_one_place([[tmp_path]]))


def test_volumes_pair_by_name_too(tmp_path):
    for name, shift in (("P1_FD.nii", 0), ("P1_QD.nii", 5)):
        volume = np.random.default_rng(0).integers(-1000, 800, (8, 7, 2)).astype(np.int16) + np.int16(shift)
        nib.save(nib.Nifti1Image(volume, np.diag([-1, -1, 2, 1])), tmp_path / name)
    ((case,),) = cases_of(scans_in_one_place([[tmp_path]]))
    pair = case.make()
    np.testing.assert_array_equal(pair.image, pair.label + 5)


def test_real_pairs_of_another_grid_are_refused(tmp_path):
    def save(folder, name, affine, slices=2):
        folder.mkdir()
        hu = np.random.default_rng(0).integers(-1000, 800, (8, 8, slices)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, affine), folder / name)
        return [folder]

    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    moved = affine.copy()
    moved[2, 3] = 3.0
    full = save(tmp_path / "full", "P1.nii", affine)
    with pytest.raises(DataError, match="the same affine, but entries differ by up to 3 mm"):
        cases_of(scans_in_two_places(save(tmp_path / "moved", "P1.nii", moved), [full]))
    with pytest.raises(DataError, match=r"the same shape, but got \(8, 8, 2\) and \(8, 8, 3\)"):
        cases_of(scans_in_two_places(save(tmp_path / "longer", "P1.nii", affine, slices=3), [full]))
    with pytest.raises(DataError, match="there is none"):
        cases_of(scans_in_two_places(save(tmp_path / "other", "P2.nii", affine), [full]))
