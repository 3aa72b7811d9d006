from pathlib import Path

import numpy as np
import pytest

from ct_cncl.transforms.datalist import DataError
from ct_cncl.transforms.pairs import AFFINE_TOLERANCE_MM, Located, match_pairs


def located(name, patient, *, shape=(8, 8, 4), shift=0.0, spacing=1.0):
    affine = np.diag([spacing, spacing, 2.0, 1.0])
    affine[2, 3] = shift
    return Located(Path(name), patient, shape, affine)


def test_partners_have_one_patient_and_geometry_in_the_order_of_full():
    low = [located("l0", "A"), located("l1", "B", shift=5), located("l2", "B"), located("l3", "C", shape=(8, 8, 9))]
    full = [located("f0", "C", shape=(8, 8, 9)), located("f1", "B"), located("f2", "A"), located("f3", "B", shift=5)]
    assert match_pairs(low, full) == [(3, 0), (2, 1), (0, 2), (1, 3)]


def test_affines_may_differ_within_the_tolerance():
    assert match_pairs([located("l", "A")], [located("f", "A", shift=0.9 * AFFINE_TOLERANCE_MM)]) == [(0, 0)]


def test_equal_names_decide_between_several_candidates():
    low = [located("low/a.nii", "A"), located("low/b.nii", "A")]
    full = [located("full/b.nii", "A"), located("full/a.nii", "A")]
    assert match_pairs(low, full) == [(1, 0), (0, 1)]


def test_candidates_that_nothing_tells_apart_are_refused():
    low = [located("a.nii", "A"), located("b.nii", "A")]
    with pytest.raises(DataError, match=r"one low-dose partner for f\.nii, but a\.nii, b\.nii all"):
        match_pairs(low, [located("f.nii", "A")])


def test_another_shape_is_refused():
    with pytest.raises(DataError, match=r"f\.nii.*l\.nii to have one shape, but got \(8, 8, 4\) and \(8, 8, 5\)"):
        match_pairs([located("l.nii", "A", shape=(8, 8, 5))], [located("f.nii", "A")])


@pytest.mark.parametrize(("change", "difference"), [({"shift": 2.5}, "2.5 mm"), ({"spacing": 1.25}, "0.25 mm")])
def test_another_affine_is_refused(change, difference):
    with pytest.raises(DataError, match=f"one affine, but entries differ by up to {difference}"):
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
