from pathlib import Path

import numpy as np
import pytest

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.matching import PairCandidate, match_pairs
from ct_cncl.transforms.series.grid import TOLERANCE_MM


def located(path, patient, *, shape=(8, 8, 4), shift=0.0, spacing=1.0, **stated):
    affine = np.diag([spacing, spacing, 2.0, 1.0])
    affine[2, 3] = shift
    return PairCandidate(Path(path), patient, shape, affine, **stated)


def test_partners_have_one_patient_and_geometry_in_the_order_of_full():
    low = [located("l0", "A"), located("l1", "B", shift=5), located("l2", "B"), located("l3", "C", shape=(8, 8, 9))]
    full = [located("f0", "C", shape=(8, 8, 9)), located("f1", "B"), located("f2", "A"), located("f3", "B", shift=5)]
    assert match_pairs(low, full) == [(3, 0), (2, 1), (0, 2), (1, 3)]


def test_affines_may_differ_within_the_tolerance():
    assert match_pairs([located("l", "A")], [located("f", "A", shift=0.9 * TOLERANCE_MM)]) == [(0, 0)]


def test_equal_names_decide_between_several_candidates():
    low = [located("low/a.nii", "A"), located("low/b.nii", "A")]
    full = [located("full/b.nii", "A"), located("full/a.nii", "A")]
    assert match_pairs(low, full) == [(1, 0), (0, 1)]


def test_candidates_that_nothing_tells_apart_are_refused():
    low = [located("a.nii", "A"), located("b.nii", "A")]
    with pytest.raises(DataError, match=r"one low-dose partner for f\.nii, but a\.nii, b\.nii all"):
        match_pairs(low, [located("f.nii", "A")])


def test_another_shape_is_refused():
    with pytest.raises(DataError, match=r"f\.nii.*l\.nii to have the same shape, but got \(8, 8, 4\) and \(8, 8, 5\)"):
        match_pairs([located("l.nii", "A", shape=(8, 8, 5))], [located("f.nii", "A")])


@pytest.mark.parametrize(("change", "difference"), [({"shift": 2.5}, "2.5 mm"), ({"spacing": 1.25}, "0.25 mm")])
def test_another_affine_is_refused(change, difference):
    with pytest.raises(DataError, match=f"the same affine, but entries differ by up to {difference}"):
        match_pairs([located("l.nii", "A", **change)], [located("f.nii", "A")])


def test_a_full_dose_scan_without_a_partner_is_refused():
    with pytest.raises(DataError, match=r"low-dose partner of the same patient for f\.nii, but there is none"):
        match_pairs([located("l.nii", "B")], [located("f.nii", "A")])


def test_a_low_dose_scan_left_over_is_refused():
    with pytest.raises(DataError, match=r"l2\.nii has no full-dose partner"):
        match_pairs([located("l1.nii", "A"), located("l2.nii", "B")], [located("f.nii", "A")])


def test_a_low_dose_scan_with_two_partners_is_refused():
    with pytest.raises(DataError, match=r"l\.nii has more than one full-dose partner"):
        match_pairs([located("l.nii", "A")], [located("f1.nii", "A"), located("f2.nii", "A")])


def test_frames_of_reference_tell_acquisitions_at_the_same_places_apart():
    low = [located("l1", "A", frame="1.1"), located("l2", "A", frame="1.2")]
    full = [located("f2", "A", frame="1.2"), located("f1", "A", frame="1.1")]
    assert match_pairs(low, full) == [(1, 0), (0, 1)]


def test_different_frames_of_reference_are_no_pair_unless_the_user_says_so():
    scans = [located("l", "A", frame="1.1")], [located("f", "A", frame="1.2")]
    with pytest.raises(DataError, match="share a frame of reference, but they have two.*--across-frames"):
        match_pairs(*scans)
    assert match_pairs(*scans, across_frames=True) == [(0, 0)]
    assert match_pairs(scans[0], [located("f", "A")]) == [(0, 0)]  # one that states none is compared by position


def test_the_same_frame_counts_more_than_another_where_both_are_allowed():
    low = [located("l1", "A", frame="1.1"), located("l2", "A", frame="1.2")]
    assert match_pairs(low[1:], [located("f", "A", frame="1.2")], across_frames=True) == [(0, 0)]
    full = [located("f1", "A", frame="1.1"), located("f2", "A", frame="1.2")]
    assert match_pairs(low, full, across_frames=True) == [(0, 0), (1, 1)]


def test_kernels_tell_reconstructions_apart_and_other_kernels_are_no_pair():
    low = [located("l1", "A", kernel="B30f"), located("l2", "A", kernel="D45f")]
    full = [located("f2", "A", kernel="D45f"), located("f1", "A", kernel="B30f")]
    assert match_pairs(low, full) == [(1, 0), (0, 1)]
    with pytest.raises(
        DataError, match="f2 and its low-dose partner l1 to have the same kernel, but got D45f and B30f"
    ):
        match_pairs(low[:1], full[:1])


def test_names_alike_but_for_the_dose_decide():
    low = [located("x", "A", name="L067/quarter_3mm_sharp"), located("x", "A", name="L067/quarter_3mm")]
    full = [located("y", "A", name="L067/full_3mm"), located("y", "A", name="L067/full_3mm_sharp")]
    assert match_pairs(low, full) == [(1, 0), (0, 1)]


def test_the_slices_that_are_missing_are_counted():
    with pytest.raises(DataError, match=r"Only 3 of its 4 slices lie at the position of one of the other's 3"):
        match_pairs([located("l", "A", shape=(8, 8, 3), shift=2.0)], [located("f", "A")])
    with pytest.raises(DataError, match=r"up to 1 mm\. Only 0 of its 4 slices"):
        match_pairs([located("l", "A", shift=1.0)], [located("f", "A")])


def test_the_scan_nearest_to_a_partner_is_named():
    low = [located("far", "A", shape=(6, 6, 4)), located("near", "A", shape=(8, 8, 3))]
    with pytest.raises(DataError, match="f and its low-dose partner near to have the same shape"):
        match_pairs(low, [located("f", "A")])


def test_every_scan_in_trouble_is_named_at_once():
    low = [located("l1", "A", shape=(8, 8, 3)), located("l3", "C"), located("l4", "D", problem="2 slices are missing")]
    full = [located("f1", "A"), located("f2", "B"), located("f4", "D")]
    with pytest.raises(DataError) as caught:
        match_pairs(low, full)
    text = str(caught.value)
    for words in (
        "f1 and its low-dose partner l1",
        "for f2, but there is none",
        "l3 has no full",
        "l4 to be a volume, but: 2 slices",
    ):
        assert words in text
    assert text.count("Expected") == 4  # what follows from another problem is not said again
    assert "\n" not in text


def test_no_more_than_ten_are_named():
    with pytest.raises(DataError, match="And 2 more"):
        match_pairs([], [located(f"f{k}", "A") for k in range(12)])
