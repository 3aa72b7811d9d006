"""Headers of NIfTI, MHA, NRRD and TIFF that state less, other or more than their file holds: right values, or one line that names the field."""

import gzip

import numpy as np
import pytest
from series_files import nifti, refused

from ct_cncl.transforms.series import find_scans, read_scan
from ct_cncl.transforms.series.slices import open_slices

AFFINE = np.diag([-0.8, -0.8, 2.0, 1.0])


def stored(slices=3):
    return np.random.default_rng(0).integers(-1000, 2000, (5, 4, slices)).astype(np.int16)


def packed(path):
    other = path.with_name(path.name + ".gz")
    other.write_bytes(gzip.compress(path.read_bytes()))
    return other


def text_volume(path, lines, values, end):
    path.write_bytes("\n".join([*lines, end]).encode() + values.tobytes(order="F"))
    return path


def mha(path, *more, values=None, slices=3, compressed=False):
    values = stored() if values is None else values
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "ElementSpacing = 0.8 0.8 2",
    ]
    lines += [f"DimSize = 5 4 {slices}", "ElementType = MET_SHORT"]
    lines = [line for line in lines if line.split(" = ")[0] not in {own.split(" = ")[0] for own in more}]
    if compressed:
        import zlib

        body = np.frombuffer(zlib.compress(values.tobytes(order="F")), np.uint8)
        return text_volume(path, [*lines, *more, "CompressedData = True"], body, "ElementDataFile = LOCAL\n")
    return text_volume(path, [*lines, *more], values, "ElementDataFile = LOCAL\n")


def nrrd(path, *more, values=None, slices=3, encoding="raw", endian=True):
    values = stored() if values is None else values
    lines = [
        "NRRD0004",
        "type: short",
        "dimension: 3",
        f"sizes: 5 4 {slices}",
        f"encoding: {encoding}",
        "space: left-posterior-superior",
    ]
    lines += ["space directions: (0.8,0,0) (0,0.8,0) (0,0,2)", *(["endian: little"] if endian else []), *more]
    if encoding == "gzip":
        values = np.frombuffer(gzip.compress(values.tobytes(order="F")), np.uint8)
    return text_volume(path, lines, values, "\n")


@pytest.mark.parametrize(
    ("offset", "words"), [(0, "from byte 352 on, but got vox_offset 0"), (348, "vox offset 348 too low")]
)
def test_nifti_whose_voxels_would_start_within_its_header(tmp_path, offset, words):
    """nibabel reads the header as voxels then, ITK starts at byte 348."""
    path = nifti(tmp_path / "a.nii", stored(), AFFINE)
    raw = bytearray(path.read_bytes())
    raw[108:112] = np.float32(offset).tobytes()
    path.write_bytes(raw)
    for each in (path, packed(path)):
        refused(each, words)


MORE = {
    "nifti": lambda path: nifti(path / "a.nii", stored(), AFFINE, dim=[3, 5, 4, 2, 1, 1, 1, 1]),
    "nifti packed": lambda path: packed(nifti(path / "a.nii", stored(), AFFINE, dim=[3, 5, 4, 2, 1, 1, 1, 1])),
    "mha": lambda path: mha(path / "a.mha", slices=2),
    "mha packed": lambda path: mha(path / "a.mha", slices=2, compressed=True),
    "nrrd": lambda path: nrrd(path / "a.nrrd", slices=2),
    "nrrd packed": lambda path: nrrd(path / "a.nrrd", slices=2, encoding="gzip"),
}


@pytest.mark.parametrize("kind", MORE)
def test_slices_that_the_header_does_not_count_are_not_lost(tmp_path, kind):
    path = MORE[kind](tmp_path)
    refused(path, "expected only the slices that its header states but got more after them")
    (source,) = find_scans(path)
    with pytest.raises(ValueError, match="but got more after them"):
        open_slices(source, tmp_path)


def test_a_few_bytes_behind_the_voxels_are_no_slice(tmp_path):
    for make in (mha, nrrd):
        path = make(tmp_path / f"a.{make.__name__}")
        path.write_bytes(path.read_bytes() + b"\1" * 39)
        np.testing.assert_array_equal(read_scan(path).hu, stored())
    path = nifti(tmp_path / "a.nii", stored(), AFFINE)
    path.write_bytes(path.read_bytes() + b"\1" * 39)
    np.testing.assert_array_equal(read_scan(packed(path)).hu, stored())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("DistanceUnits = cm", "DistanceUnits cm, not mm"),
        ("DistanceUnits = um", "DistanceUnits um, not mm"),
        ("ElementToIntensityFunctionSlope = 2", "scaled by 2 and 0, not HU"),
        ("ElementToIntensityFunctionOffset = -1024", "scaled by 1 and -1024, not HU"),
        ("NDims = 4", "NDims 4, not the 3 of DimSize"),
    ],
)
def test_units_and_scales_of_mha_that_itk_passes_over(tmp_path, line, words):
    refused(mha(tmp_path / "a.mha", line), words)


def test_units_and_scales_of_mha_that_change_nothing(tmp_path):
    same = ("DistanceUnits = mm", "ElementToIntensityFunctionSlope = 1", "ElementToIntensityFunctionOffset = 0")
    np.testing.assert_array_equal(read_scan(mha(tmp_path / "a.mha", *same)).hu, stored())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kinds: domain domain time", "axes of kind time, not of space"),
        ("kinds: RGB-color domain domain", "axes of kind rgb-color, not of space"),
        ("old min: -1000", "quantized values (old min, old max), not HU"),
    ],
)
def test_nrrd_that_is_no_volume_of_hu(tmp_path, line, words):
    refused(nrrd(tmp_path / "a.nrrd", line), words)


def test_nrrd_of_words_without_their_order(tmp_path):
    refused(nrrd(tmp_path / "a.nrrd", endian=False), "a missing or unknown endian")


@pytest.mark.parametrize("yes", ["True", "T", "1", "true"])
def test_flags_of_mha_are_read_by_their_first_letter(tmp_path, yes):
    """As ITK does; "1" was read as no, and every voxel with its bytes swapped."""
    values = stored().astype(">i2")
    path = mha(tmp_path / "a.mha", f"BinaryDataByteOrderMSB = {yes}", f"BinaryData = {yes}", values=values)
    np.testing.assert_array_equal(read_scan(path).hu, stored())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["BinaryDataByteOrderMSB = maybe"], "BinaryDataByteOrderMSB maybe, not True or False"),
        (["ElementByteOrderMSB = True"], "BinaryDataByteOrderMSB and ElementByteOrderMSB that disagree"),
        (["HeaderSize = 100"], "HeaderSize 100, which programs interpret differently"),
        (["Comment = a", "Comment = b"], "Comment twice in its header"),
        (["Offset = 0 0 0", "Origin = 9 9 9"], "Offset and Origin that disagree"),
    ],
)
def test_mha_that_says_two_things(tmp_path, lines, words):
    refused(mha(tmp_path / "a.mha", *lines), words)


def test_mha_that_says_one_thing_twice(tmp_path):
    path = mha(
        tmp_path / "a.mha", "Offset = 1 2 3", "Origin = 1.0 2 3", "HeaderSize = -1", "ElementByteOrderMSB = False"
    )
    np.testing.assert_array_equal(read_scan(path).hu, stored())
    np.testing.assert_array_equal(read_scan(path).affine[:3, 3], [-1, -2, 3])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sizes: 5 4 2", "sizes twice in its header"),
        ("spacings: 1 1 1", "spacings or units in addition to space directions"),
        ('units: "mm" "mm" "s"', "spacings or units in addition to space directions"),
        ("axis mins: 0 0 0", "axis mins, which programs interpret differently"),
    ],
)
def test_nrrd_that_says_two_things(tmp_path, line, words):
    refused(nrrd(tmp_path / "a.nrrd", line), words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"dimension: 3", b"dimension: 2", "dimension 2, not the 3 of sizes"),
        (b"NRRD0004", b"NRRD0009", "no NRRD header"),
        (
            b"space directions: (0.8,0,0) (0,0.8,0) (0,0,2)",
            b"space origin: (1,2,3)",
            "a space origin without space directions",
        ),
    ],
)
def test_nrrd_that_fits_no_version_of_its_format(tmp_path, old, new, words):
    path = nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(old, new))
    refused(path, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pixdim": [1, 0.8, 0.8, 5, 0, 0, 0, 0]}, "one voxel size but got 0.8 x 0.8 x 2 and 0.8 x 0.8 x 5"),
        ({"quatern_b": 1, "quatern_c": 0, "quatern_d": 0}, "qform and sform to run one way but got RPI and LPS"),
    ],
)
def test_qform_and_sform_that_disagree_are_told(tmp_path, caplog, fields, words):
    """ITK takes the one, nibabel the other; a copy of the header keeps both."""
    path = nifti(tmp_path / "a.nii", stored(), AFFINE, **fields)
    assert words in " ".join(opened(path, tmp_path).problems)
    np.testing.assert_array_equal(read_scan(path).affine.round(6), AFFINE)
    assert words in caplog.text


@pytest.mark.parametrize("codes", [{"qform": 0}, {"sform": 0}, {}])
def test_forms_that_agree_or_stand_alone_are_no_problem(tmp_path, codes):
    assert opened(nifti(tmp_path / "a.nii", stored(), AFFINE, **codes), tmp_path).problems == []


def opened(path, scratch):
    (source,) = find_scans(path)
    return open_slices(source, scratch)


@pytest.mark.parametrize("length", [0, -4])
def test_nifti_without_slices_is_damaged_and_not_to_be_split(tmp_path, length):
    path = nifti(tmp_path / "a.nii", stored(), AFFINE)
    raw = bytearray(path.read_bytes())
    raw[46:48] = np.int16(length).tobytes()
    path.write_bytes(raw)
    refused(path, "expected dimensions of at least 1 but got")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"photometric": "miniswhite"}, "MINISWHITE"), ({"extratags": [(274, 3, 1, 3, True)]}, "Orientation 3")],
)
def test_tiff_that_is_shown_inverted_or_turned(tmp_path, options, words):
    """Programs turn such values round, or do not."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", stored().T, **{"photometric": "minisblack"} | options)
    refused(tmp_path / "a.tif", words)
