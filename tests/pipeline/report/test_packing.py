"""Packed slices: what a page holds is what was measured, to the bit."""

import base64
import zlib

import numpy as np
import pytest

from ct_cncl.pipeline.report.packing import pack_plane, unpack_plane


def test_whole_hu_come_back_exactly():
    rng = np.random.default_rng(0)
    hu = rng.integers(-32767, 32768, (37, 23)).astype(np.float32)  # jumps over the whole range wrap 16 bits
    np.testing.assert_array_equal(unpack_plane(pack_plane(hu), (37, 23)), hu)


def test_every_jump_of_16_bits_comes_back():
    row = np.array([-32767, 32767, -32767, 0, 32767, -1, 0, 1, -32768 + 1], dtype=np.float64)
    np.testing.assert_array_equal(unpack_plane(pack_plane(row[:, None]), (9, 1))[:, 0], row)


def test_rounded_to_the_step_never_truncated():
    hu = np.array([[-1.6, -0.4, 0.6, 2.26]]).T
    assert unpack_plane(pack_plane(hu), (4, 1))[:, 0].tolist() == [-2, 0, 1, 2]
    assert unpack_plane(pack_plane(hu, step=0.5), (4, 1), step=0.5)[:, 0].tolist() == [-1.5, -0.5, 0.5, 2.5]


def test_not_finite_is_marked_and_too_large_is_clipped():
    hu = np.array([[np.nan, np.inf, -np.inf, 1e9, -1e9, 5.0]]).T
    back = unpack_plane(pack_plane(hu), (6, 1))[:, 0]
    np.testing.assert_array_equal(back, [np.nan, np.nan, np.nan, 32767, -32767, 5])


def test_rows_of_pixels_run_along_the_columns():
    hu = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0]])  # (columns, rows): 1 to the right, 100 downwards
    folded = np.frombuffer(zlib.decompress(base64.b64decode(pack_plane(hu))), np.uint8)
    assert folded.tolist() == [0, 2, 2, 200, 2, 2] + [0] * 6  # steps of +1 fold to 2, low bytes first


def test_pack_refuses_what_is_no_slice():
    with pytest.raises(ValueError, match=r"Expected a slice \(columns, rows\), but got shape \(2, 3, 4\)"):
        pack_plane(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="Expected a step above 0 HU"):
        pack_plane(np.zeros((2, 3)), step=0)
