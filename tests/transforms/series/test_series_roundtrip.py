"""Properties of generated scans: what is read and written again unchanged is equal bit for bit; changes arrive rounded."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pydicom
import pytest

hypothesis = pytest.importorskip("hypothesis")
from derive_files import datasets, derive  # noqa: E402
from enhanced_files import valid_enhanced  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402
from series_files import ct_slice, nifti, save  # noqa: E402

from ct_cncl.transforms.anatomy.regions import padding_mask  # noqa: E402

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
"""More of them, and other ones each time, where the environment asks for it."""
FEW = settings(max_examples=EXAMPLES or 30, deadline=None, derandomize=not EXAMPLES, database=None)
SLOPES = st.one_of(st.sampled_from([1.0, 0.001, 2.0002442, 0.5, 1e-5]), st.floats(1e-4, 50, allow_subnormal=False))
AXES = st.sampled_from(["axial", "coronal", "sagittal", "tilted", "flipped", "oblique"])


@contextmanager
def folder():
    with TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def layouts(draw):
    bits = draw(st.sampled_from([8, 10, 12, 15, 16]))
    signed = draw(st.booleans())
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return bits, signed, low, high


@st.composite
def dicom_series(draw):
    """Stored words of a few slices and everything that says what they mean."""
    bits, signed, low, high = draw(layouts())
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    values = draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high)))
    above = draw(st.sampled_from(["sign", "zero", "overlay"])) if bits < 16 else "sign"
    words = values & 0xFFFF
    if above != "sign":
        words = words & ((1 << bits) - 1)
    if above == "overlay":
        words |= draw(st.integers(1, (1 << (16 - bits)) - 1)) << bits
    padding = draw(st.one_of(st.none(), st.just(low), st.integers(low, high)))
    return {
        "words": words.astype(np.uint16),
        "values": values,
        "layout": (bits, signed, low, high),
        "slope": float(f"{draw(SLOPES):.8g}"),  # DS holds 16 characters
        "intercept": float(draw(st.integers(-5000, 100))) + draw(st.sampled_from([0.0, 0.25])),
        "padding": padding,
        "orientation": draw(AXES),
        "spacing": [draw(st.floats(0.2, 3).map(lambda v: round(v, 4))) for _ in range(2)],
        "step": draw(st.floats(0.3, 8).map(lambda v: round(v, 3))),
        "up": draw(st.booleans()),
    }


def geometry(case, count):
    angle = np.deg2rad(20)
    rows, columns = {
        "axial": ((1, 0, 0), (0, 1, 0)),
        "coronal": ((1, 0, 0), (0, 0, -1)),
        "sagittal": ((0, 1, 0), (0, 0, -1)),
        "tilted": ((1, 0, 0), (0, np.cos(angle), -np.sin(angle))),
        "flipped": ((-1, 0, 0), (0, 1, 0)),
        "oblique": ((0.8, 0.6, 0), (-0.6 * np.cos(angle), 0.8 * np.cos(angle), np.sin(angle))),
    }[case["orientation"]]
    normal = np.cross(rows, columns) * (1 if case["up"] else -1)
    if case["orientation"] == "tilted":
        normal = np.array([0, 0, 1.0])
    positions = [np.round(normal * case["step"] * k + (1, 2, 3), 6) for k in range(count)]
    return [float(f"{v:.10f}") for v in (*rows, *columns)], positions


def write_series(case, where):
    bits, signed, _, _ = case["layout"]
    orientation, positions = geometry(case, len(case["words"]))
    for k, words in enumerate(case["words"]):
        ds = ct_slice(
            np.zeros(words.shape),
            positions[k],
            signed=signed,
            slope=f"{case['slope']:.8g}",
            intercept=f"{case['intercept']:.8g}",
            ImageOrientationPatient=orientation,
            PixelSpacing=case["spacing"],
            BitsStored=bits,
            HighBit=bits - 1,
            StudyInstanceUID="1.9",
            InstanceNumber=k,
        )
        if case["padding"] is not None:
            ds.add_new(0x00280120, "SS" if signed else "US", case["padding"])
        ds.PixelData = words.astype("<u2").tobytes()
        save(ds, where / f"{k}.dcm")


def written(made):
    return {ds.InstanceNumber: np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns) for ds in datasets(made)}


@FEW
@given(dicom_series())
def test_dicom_unchanged_is_equal_word_for_word(case):
    with folder() as where:
        write_series(case, where / "in")
        made, writer, _ = derive(where / "in", where / "w")
        found = written(made["denoised"])
        for k, words in enumerate(case["words"]):
            np.testing.assert_array_equal(found[k], words)
        assert {kind: found.count for kind, found in writer.clipped.items()} == {"denoised": 0}
        shutil.rmtree(where / "w")
        made, _, _ = derive(where / "in", where / "w", compression="rle")
        for ds in datasets(made["denoised"]):
            decoded = pydicom.pixel_array(ds, correct_unused_bits=False).astype(np.int64) & 0xFFFF
            np.testing.assert_array_equal(decoded, case["words"][ds.InstanceNumber])


@FEW
@given(dicom_series(), st.sampled_from([-3000.0, -7.5, -0.4, 0.6, 33.0, 1e5]))
def test_dicom_changes_arrive_rounded_clipped_and_counted(case, change):
    """The reference: integers, computed from the stored values alone."""
    bits, _, low, high = case["layout"]
    with folder() as where:
        write_series(case, where / "in")
        made, writer, slices = derive(where / "in", where / "w", lambda hu: hu + np.float32(change))
        found, clipped = written(made["denoised"]), 0
        for k, values in enumerate(case["values"]):
            hu = (values * case["slope"] + case["intercept"]).astype(np.float32)
            padded = padding_mask(slices.order.apply(hu.T[..., None])[..., 0])
            padded = slices.order.undo(padded[..., None])[..., 0].T
            if case["padding"] is not None:
                padded = padded | (values == case["padding"])
            actual = (hu + np.float32(change)).astype(np.float64) - hu
            wanted = np.rint(values + np.rint(actual / case["slope"]))
            kept = padded | (actual == 0)
            outside = (wanted < low) | (wanted > high)
            clipped += int((~kept & outside & (wanted.clip(low, high) != values)).sum())  # what stood there stays
            wanted = np.where(kept, values, wanted.clip(low, high)).astype(np.int64)
            np.testing.assert_array_equal(found[k] & ((1 << bits) - 1), wanted & ((1 << bits) - 1))
            np.testing.assert_array_equal(found[k][kept], case["words"][k][kept])
        assert {kind: found.count for kind, found in writer.clipped.items()} == {"denoised": clipped}


@FEW
@given(hnp.arrays(np.int64, (3, 5, 4), elements=st.integers(0, 4095)), st.permutations([0, 1, 2]), st.booleans())
def test_enhanced_unchanged_is_equal(stored, order, compressed):
    with folder() as where:
        save(valid_enhanced(stored, [(0, 0, 2.0 * k) for k in order]), where / "in" / "a.dcm")
        made, _, _ = derive(where / "in", where / "w", compression="rle" if compressed else "none")
        (result,) = datasets(made["denoised"])
        np.testing.assert_array_equal(result.pixel_array, stored)


@FEW
@given(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=7),
    st.sampled_from(["i1", "u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f8"]),
    st.sampled_from([(np.nan, np.nan), (1, -1024), (0.001, 0), (2.0002442, -4047)]),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_nifti_unchanged_is_the_same_file(shape, dtype, scaling, axes, signs, packed, seed):
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        stored = rng.normal(0, 500, shape)
    else:
        info = np.iinfo(dtype)
        stored = rng.integers(max(info.min, -2000), min(info.max, 3000), shape, endpoint=True)
    affine = np.eye(4)
    affine[:3, :3] = (np.diag([0.7, 0.7, 2.5]) * signs)[axes]
    with folder() as where:
        path = where / ("in.nii.gz" if packed else "in.nii")
        nifti(
            path, stored.astype(dtype.newbyteorder("=")), affine, *scaling, endian="<" if dtype.str[0] != ">" else ">"
        )
        made, _, _ = derive(path, where / "w")
        if packed:
            result = made["denoised"].rename(where / "out.nii.gz")
            np.testing.assert_array_equal(
                nib.load(result).dataobj.get_unscaled(), nib.load(path).dataobj.get_unscaled()
            )
            assert nib.load(result).header == nib.load(path).header
        else:
            assert made["denoised"].read_bytes() == path.read_bytes()
