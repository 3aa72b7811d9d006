"""Packed slices: what a page holds is what was measured, to the bit."""

import base64
import zlib

import numpy as np
import pytest
from unpacking import bytes_of, unpack_plane

from ct_cncl.pipeline.report.packing import DIGITS, pack_plane, packed_text


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
    folded = np.frombuffer(zlib.decompress(bytes_of(pack_plane(hu))), np.uint8)
    # +1 folds to 2, low bytes first; in the second row 100 is expected to be 0, 101 and 102 are as the plane goes on
    assert folded.tolist() == [0, 2, 2, 200, 2, 2] + [0] * 6


def test_the_expected_pixel_is_the_median_of_its_neighbours_and_their_plane():
    plane = np.add.outer(3.0 * np.arange(6), 5.0 * np.arange(4)).T  # (4, 6): clipped to the larger neighbour
    folded = np.frombuffer(zlib.decompress(bytes_of(pack_plane(plane.T))), np.uint8)[:24].reshape(4, 6)
    assert (folded[1:, 1:] == 2 * 3).all()  # left + 5 - ... : max(left, above) lacks the smaller of both steps
    edge = np.zeros((8, 8))
    edge[4:] = 1000  # along columns: the row below knows of it
    folded = np.frombuffer(zlib.decompress(bytes_of(pack_plane(edge))), np.uint8)
    assert np.count_nonzero(folded[:64]) == 1


@pytest.mark.parametrize("size", range(9))
def test_text_is_base_85_of_the_bytes(size):
    """Python's own Ascii85 with other characters, which writes z for four zero bytes."""
    data = np.random.default_rng(size).integers(1, 256, size).astype(np.uint8).tobytes()
    own = "".join(DIGITS[code - 33] for code in base64.a85encode(data))
    assert packed_text(data) == own
    assert bytes_of(own) == data


def test_no_character_means_anything_in_html():
    assert len(set(DIGITS)) == 85
    assert not set('<>&"') - {">"} & set(DIGITS)
    assert all("!" <= character <= "~" for character in DIGITS)


def test_pack_refuses_what_is_no_slice():
    with pytest.raises(ValueError, match=r"Expected a slice \(columns, rows\), but got shape \(2, 3, 4\)"):
        pack_plane(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="Expected a step above 0 HU"):
        pack_plane(np.zeros((2, 3)), step=0)
