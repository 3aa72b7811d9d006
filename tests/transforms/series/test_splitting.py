"""One SeriesInstanceUID: what stays together and what does not."""

import logging

import numpy as np
import pydicom
import pytest
from derive_files import DONE, datasets, derive
from enhanced_files import valid_enhanced
from series_files import AXIAL, POSITIONS, ct_series, ct_slice, refused, save

from ct_cncl.transforms.series import ScanError, find_scans, read_scan
from ct_cncl.transforms.series.find import search
from ct_cncl.transforms.series.results import open_results
from ct_cncl.transforms.series.slices import open_slices

CORONAL = [1, 0, 0, 0, 0, -1]


def sources(path):
    return [(source.name, len(source.files), source.part) for source in find_scans(path)]


@pytest.mark.parametrize(
    "other",
    [
        {"StudyInstanceUID": "1.8"},
        {"SeriesNumber": 7},
        {"FrameOfReferenceUID": "1.7"},
        {"StudyInstanceUID": "1.8", "PatientID": "P2"},
    ],
)
def test_one_uid_for_two_series_is_two_series(tmp_path, caplog, other):
    """Regression: two studies became one result with two StudyInstanceUIDs."""
    stated = {"StudyInstanceUID": "1.9", "FrameOfReferenceUID": "1.6"}
    stored = ct_series(tmp_path / "in" / "a", POSITIONS[:3], **stated)
    moved = [(x, y, z + 7.5) for x, y, z in POSITIONS[:2]]
    ct_series(tmp_path / "in" / "b", moved, **(stated | other))
    with caplog.at_level(logging.WARNING):
        first, second = find_scans(tmp_path / "in")
    studies, numbers = 1 + ("StudyInstanceUID" in other), 1 + ("SeriesNumber" in other)
    said = f"one SeriesInstanceUID stands for {studies} studies and {numbers} series numbers; each is taken by itself"
    assert (said in caplog.text) == ("FrameOfReferenceUID" not in other)
    assert (len(first.files), len(second.files)) == (3, 2)
    assert first.name != second.name
    np.testing.assert_array_equal(read_scan(first).hu, stored.transpose(2, 1, 0) - 1024)
    results = []
    for source in (first, second):
        made, _, _ = derive_source(source, tmp_path / source.name)
        results.append({(ds.SeriesInstanceUID, ds.StudyInstanceUID) for ds in datasets(made["denoised"])})
    assert [len(found) for found in results] == [1, 1]
    assert results[0].isdisjoint(results[1])


def derive_source(source, work):
    """As derive, of one of several sources."""
    scratch, made = work / "scratch", work / "made"
    for folder in (scratch, made):
        folder.mkdir(parents=True)
    slices = open_slices(source, scratch)
    writer = open_results(slices, ("denoised",), made, DONE)
    for number in range(slices.count):
        own = slices.read(number)
        writer.write(number, own, {"denoised": own.hu})
    return writer.finish(), writer, slices


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_what_every_slice_has_one_of_its_own_of_splits_nothing(tmp_path, name, caplog):
    for k in range(4):
        ds = ct_slice(np.zeros((4, 6), int), POSITIONS[k])
        setattr(ds, name, f"1.6.{k}")
        save(ds, tmp_path / "in" / f"{k}.dcm")
    assert sources(tmp_path / "in") == [("in_series002", 4, 0)]
    assert ("4 studies and 1 series numbers; nearly every file" in caplog.text) == (name == "StudyInstanceUID")


def test_two_patients_of_one_study_are_refused_still(tmp_path):
    for k, patient in enumerate(("P1", "P2")):
        save(
            ct_slice(np.zeros((4, 6), int), POSITIONS[k], StudyInstanceUID="1.9", PatientID=patient),
            tmp_path / "in" / f"{k}.dcm",
        )
    refused(tmp_path / "in", "expected slices of one patient but got 2")


def radial(folder, *, shape=(5, 7)):
    """Images about the patient's long axis, 30 degrees apart; each a constant of its own but for a mark in its first pixel."""
    for k in range(6):
        angle = np.pi * k / 6
        across = [round(float(value), 6) for value in (np.cos(angle), np.sin(angle), 0)]
        stored = np.full(shape, 100 * k)
        stored[0, 0] = 3000
        position = [-10 * across[0], -10 * across[1], 25.0]
        ds = ct_slice(stored, position, StudyInstanceUID="1.9", ImageOrientationPatient=[*across, 0, 0, -1])
        save(ds, folder / f"{k}.dcm")


def test_radial_reformats_are_one_series(tmp_path):
    """Regression: six images became six series."""
    radial(tmp_path / "in")
    assert sources(tmp_path / "in") == [("in_series002", 6, 0)]
    made, _, slices = derive(tmp_path / "in", tmp_path / "w", lambda hu: hu + 10 * np.arange(hu.shape[0])[:, None])
    assert slices.problems == ["expected slices in one direction but got 6"]
    results = datasets(made["denoised"])
    assert len({ds.SeriesInstanceUID for ds in results}) == 1
    by_uid = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (tmp_path / "in").iterdir())}
    for ds in results:
        source = by_uid[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
        np.testing.assert_array_equal(ds.ImageOrientationPatient, source.ImageOrientationPatient)
        left, back = (float(value) for value in source.ImageOrientationPatient[:2])
        seen = left > 0 if abs(left) > abs(back) else back > 0  # columns run to the left, or else to the back
        across = 10 * np.arange(7)[:: 1 if seen else -1]
        np.testing.assert_array_equal(ds.pixel_array.astype(int) - source.pixel_array, np.broadcast_to(across, (5, 7)))
    refused(tmp_path / "in", "expected all slices in one orientation")
    for number in range(slices.count):
        assert slices.neighbour(number, 1) == number


@pytest.mark.parametrize("inside", [False, True])
def test_enhanced_ct_of_two_directions(tmp_path, inside):
    """Files of one series are split by direction as classic images are; a file that holds both stays one."""
    stored = np.random.default_rng(0).integers(0, 2000, (4, 6, 6))
    positions = [(0, 0, 0), (0, 0, 2), (0, 0, 10), (0, 3, 10)]
    whole = valid_enhanced(stored, positions)
    parts = [whole] if inside else [valid_enhanced(stored[k : k + 2], positions[k : k + 2]) for k in (0, 2)]
    for part in parts:
        part.SeriesInstanceUID, part.StudyInstanceUID = "1.2.3", "1.9"
        part.FrameOfReferenceUID = "1.6"
    frames = [group for part in parts for group in part.PerFrameFunctionalGroupsSequence]
    for part in parts:
        shared = part.SharedFunctionalGroupsSequence[0]
        del shared.PlaneOrientationSequence
    for group, direction in zip(frames, (AXIAL, AXIAL, CORONAL, CORONAL), strict=True):
        plane = pydicom.Dataset()
        plane.ImageOrientationPatient = list(direction)
        group.PlaneOrientationSequence = [plane]
    for k, part in enumerate(parts):
        save(part, tmp_path / "in" / f"{k}.dcm")
    if not inside:
        assert sources(tmp_path / "in") == [("in_series002_part1", 1, 0), ("in_series002_part2", 1, 1)]
        return
    made, _, slices = derive(tmp_path / "in", tmp_path / "w")
    np.testing.assert_array_equal(datasets(made["denoised"])[0].pixel_array, stored)
    assert slices.problems[0] == "expected slices in one direction but got 2"
    assert [slices.neighbour(k, 1) for k in range(4)] == [1, 1, 3, 3]  # towards head, then towards the back
    assert [slices.neighbour(k, -1) for k in range(4)] == [0, 0, 2, 2]


def test_directions_that_a_viewer_shows_in_two_sizes_are_refused(tmp_path):
    stored = np.zeros((2, 4, 6), int)
    ds = valid_enhanced(stored, [(0, 0, 0), (0, 0, 2)])
    ds.SeriesInstanceUID, ds.StudyInstanceUID = "1.2.3", "1.9"
    del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for group, direction in zip(ds.PerFrameFunctionalGroupsSequence, (AXIAL, [0, 1, 0, 1, 0, 0]), strict=True):
        plane = pydicom.Dataset()
        plane.ImageOrientationPatient = list(direction)
        group.PlaneOrientationSequence = [plane]
    save(ds, tmp_path / "in" / "a.dcm")
    with pytest.raises(ScanError, match="slices of one size.*4 x 6 and 6 x 4"):
        derive(tmp_path / "in", tmp_path / "w")
    assert len(search(tmp_path / "in").scans) == 1


def test_images_beside_each_other_in_one_plane_are_each_written(tmp_path):
    """Regression: an affine was made of their distance within the plane, and the series was refused for it."""
    stored = ct_series(tmp_path / "in", [(0, 20.0 * k, 5) for k in range(3)], StudyInstanceUID="1.9")
    made, _, slices = derive(tmp_path / "in", tmp_path / "w")
    assert "expected one slice at each position" in slices.problems[0]
    assert sorted(ds.pixel_array.sum() for ds in datasets(made["denoised"])) == sorted(stored.sum((1, 2)))
    refused(tmp_path / "in", "expected one slice at each position")
