"""Means of large discs: shifts that are known, inside a tissue and never at its edge."""

import numpy as np
import pytest

from ct_cncl.pipeline.metrics.levels import disc_shifts

INSIDE = np.hypot(*np.mgrid[-120:120, -120:120]) < 100
SCAN = np.where(INSIDE, 40.0, -900.0)[..., None]


def test_a_shift_of_one_half_is_found_there_alone():
    after = SCAN.copy()
    after[:120][INSIDE[:120]] += 0.4
    found = disc_shifts(SCAN, after, (1.0, 1.0))
    assert found.min() == pytest.approx(0, abs=1e-9)
    assert found.max() == pytest.approx(0.4)
    assert len(found) >= 8


def test_edges_do_not_count_and_nothing_fits_into_little():
    after = np.where(INSIDE[..., None] & (np.hypot(*np.mgrid[-120:120, -120:120])[..., None] > 86), SCAN + 50, SCAN)
    assert np.abs(disc_shifts(SCAN, after, (1.0, 1.0))).max() < 1e-9
    assert disc_shifts(SCAN[80:160, 80:160], SCAN[80:160, 80:160], (0.5, 0.5)).size == 0
