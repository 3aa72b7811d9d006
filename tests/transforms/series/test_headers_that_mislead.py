"""Headers that state less, other or more than their file holds: right values, or one line that names the field."""

import gzip

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from enhanced_files import item, valid_enhanced
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless
from series_files import ct_series, ct_slice, nifti, refused, save

from ct_cncl.transforms.series import find_scans, read_scan
from ct_cncl.transforms.series.dicom import open_stacks
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
    refused(path, "expected the slices that its header counts but got more behind them")
    (source,) = find_scans(path)
    with pytest.raises(ValueError, match="but got more behind them"):
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
    refused(nrrd(tmp_path / "a.nrrd", endian=False), "no endian")


def series(folder, **changes):
    ct_series(folder, [(0, 0, 2.0 * k) for k in range(3)], **changes)
    return folder


def written(folder, tag, text):
    """A series whose files say something else, byte for byte of the same length."""
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        at = raw.index(tag, 132)
        length = int.from_bytes(raw[at + 6 : at + 8], "little")
        value = text + b" " * (len(text) % 2)
        path.write_bytes(raw[: at + 6] + len(value).to_bytes(2, "little") + value + raw[at + 8 + length :])
    return folder


SLOPE, INTERCEPT = b"\x28\x00\x53\x10DS", b"\x28\x00\x52\x10DS"
THICKNESS, SPACING, NUMBER = b"\x18\x00\x50\x00DS", b"\x28\x00\x30\x00DS", b"\x20\x00\x11\x00IS"


@pytest.mark.parametrize(
    ("tag", "text", "words"),
    [
        (SLOPE, b"nan", "expected RescaleSlope and RescaleIntercept but got nan and -1024"),
        (SLOPE, b"-inf", "but got -inf and -1024"),
        (INTERCEPT, b"inf", "but got 1 and inf"),
        (SLOPE, b"1\\2", "several values where there is one number"),
        (SPACING, b"0.5", "expected 2 numbers in PixelSpacing but got [0.5]"),
        (SPACING, b"nan\\nan", "expected 2 numbers in PixelSpacing but got [nan, nan]"),
    ],
)
def test_numbers_that_place_or_scale_nothing_are_named(tmp_path, tag, text, words):
    """In one line for the series, not one for each slice."""
    refused(written(series(tmp_path / "s"), tag, text), words)


@pytest.mark.parametrize(("tag", "text"), [(SLOPE, b"1\\1"), (INTERCEPT, b"-1024\\-1024\\-1024")])
def test_the_same_number_several_times_is_that_number(tmp_path, tag, text):
    wanted = read_scan(series(tmp_path / "a")).hu
    np.testing.assert_array_equal(read_scan(written(series(tmp_path / "b"), tag, text)).hu, wanted)


@pytest.mark.parametrize("text", [b"nan", b"-2", b"2 mm", b"2\\3", b"inf"])
def test_a_thickness_that_is_none_refuses_nothing(tmp_path, text):
    folder = tmp_path / "s"
    ct_series(folder, [(0, 0, 0)])
    assert read_scan(written(folder, THICKNESS, text)).spacing.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom
@pytest.mark.parametrize("text", [b"98765432109876543210", b"3\\4", b"CT-3", b"-99999999999"])
def test_a_series_number_beyond_integers_is_none(tmp_path, text):
    (source,) = find_scans(written(series(tmp_path / "s"), NUMBER, text))
    assert source.number is None
    made, _, _ = derive(written(series(tmp_path / "t", StudyInstanceUID="1.2.3"), NUMBER, text), tmp_path / "w")
    assert all(10**9 < int(ds.SeriesNumber) < 2**31 for ds in datasets(made["denoised"]))


def test_values_that_are_no_grey_values_are_refused(tmp_path):
    refused(
        series(tmp_path / "s", PhotometricInterpretation="PALETTE COLOR"),
        "expected grey values (MONOCHROME2) but got PALETTE COLOR",
    )
    inverted, plain = (
        read_scan(series(tmp_path / f"m{k}", PhotometricInterpretation=f"MONOCHROME{k}")).hu for k in (1, 2)
    )
    np.testing.assert_array_equal(inverted, plain)  # it says how to show them, not what they are
    refused(series(tmp_path / "u", PixelRepresentation=2), "expected Pixel Representation 0 or 1 but got 2")


def test_rows_that_the_header_does_not_count_are_not_lost(tmp_path):
    values = np.random.default_rng(3).integers(1, 2000, (6, 4))
    ds = ct_slice(values, (0, 0, 0))
    ds.Rows = 5
    refused(save(ds, tmp_path / "a.dcm"), "48 bytes of pixels where the header states 40")
    ds.PixelData = values[:5].astype("<i2").tobytes() + bytes(20)
    np.testing.assert_array_equal(read_scan(save(ds, tmp_path / "b.dcm")).hu[..., 0], values[:5].T - 1024.0)


def test_rows_that_an_enhanced_header_does_not_count_shift_no_frame(tmp_path):
    values = np.random.default_rng(4).integers(1, 2000, (4, 6, 4))
    ds = valid_enhanced(values, [(0, 0, k) for k in range(4)])
    ds.Rows = 5
    (source,) = find_scans(save(ds, tmp_path / "a.dcm"))
    slices = open_slices(source, tmp_path)
    with pytest.raises(ValueError, match="192 bytes of pixels where the header states 160"):
        slices.read(0)


def test_a_grid_of_no_numbers_is_one_series(tmp_path):
    (source,) = find_scans(written(series(tmp_path / "s"), SPACING, b"nan\\nan"))
    assert len(source.files) == 3
    with pytest.raises(ValueError, match="PixelSpacing"):
        open_stacks(source)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("frames", [3, 4])
def test_compressed_frames_that_the_header_does_not_count_are_not_lost(tmp_path, table, frames):
    """With or without an offset table; as many as are counted come out."""
    values = np.random.default_rng(5).integers(1, 2000, (4, 6, 4))
    ds = valid_enhanced(values, [(0, 0, k) for k in range(4)])
    ds = pydicom.dcmread(save(ds, tmp_path / "plain.dcm"))
    ds.compress(RLELossless, encapsulate_ext=False, generate_instance_uid=False)
    ds.PixelData = encapsulate(list(generate_frames(ds.PixelData, number_of_frames=4)), has_bot=table)
    ds.NumberOfFrames = frames
    ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence)[:frames]
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (source,) = find_scans(tmp_path / "a.dcm")
    slices = open_slices(source, tmp_path)
    if frames == 3:
        with pytest.raises(ValueError, match="4 compressed frames where the header states 3"):
            slices.read(0)
        return
    for number in range(4):
        np.testing.assert_array_equal(slices.read(number).stored.values, values[number])


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
        (["HeaderSize = 100"], "HeaderSize 100, which programs count from different places"),
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
        ("spacings: 1 1 1", "spacings or units beside space directions"),
        ('units: "mm" "mm" "s"', "spacings or units beside space directions"),
        ("axis mins: 0 0 0", "axis mins, which programs read in different ways"),
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


def repeated(folder, tag, change):
    """A series whose files get one attribute twice."""
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        at = raw.index(tag, 132)
        end = at + 8 + int.from_bytes(raw[at + 6 : at + 8], "little")
        path.write_bytes(raw[:end] + change(raw[at:end]) + raw[end:])
    return folder


@pytest.mark.parametrize(
    ("tag", "change", "word"),
    [
        (INTERCEPT, lambda element: element.replace(b"-1024", b"-1000"), "RescaleIntercept"),
        (SPACING, lambda element: element, "PixelSpacing"),
        (b"\x28\x00\x10\x00US", lambda element: element[:8] + b"\x20\x00", "Rows"),
    ],
)
def test_an_attribute_that_is_there_twice_is_refused(tmp_path, tag, change, word):
    """pydicom takes the last, dcmtk and GDCM the first: HU differed by 24 without a word."""
    refused(repeated(series(tmp_path / "s"), tag, change), f"ValueError: {word} twice")


def test_other_attributes_may_be_there_twice(tmp_path):
    folder = repeated(series(tmp_path / "a", PatientComments="x"), b"\x10\x00\x00\x40LT", bytes)
    np.testing.assert_array_equal(read_scan(folder).hu, read_scan(series(tmp_path / "b")).hu)


@pytest.mark.parametrize("name", ["BitsStored", "PixelRepresentation"])
def test_values_whose_layout_is_not_stated_are_refused(tmp_path, name):
    refused(series(tmp_path / "s", **{name: None}), f"expected {name}, which says how values are stored, but got none")


def test_images_without_rows_or_pixels_are_named(tmp_path):
    refused(series(tmp_path / "a", Rows=0), "0 rows of 6 columns")
    refused(series(tmp_path / "b", FloatPixelData=b"\0" * 96, PixelData=None), "but got Float Pixel Data")


def test_a_modality_lut_is_refused(tmp_path):
    """dcmtk prefers it to slope and intercept, others pass over it."""
    table = item(LUTDescriptor=[4, 0, 16], ModalityLUTType="HU")
    table.add_new(0x00283006, "OW", np.arange(4, dtype="<u2").tobytes())
    refused(series(tmp_path / "s", ModalityLUTSequence=[table]), "but got a Modality LUT Sequence")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", "expected a CT image but got Secondary Capture Image;"),
        ("1.3.46.670589.5.0.1", "images of a private kind (SOP Class)"),
        ("1.2.840.10008.5.1.4.1.1.99.9", "objects of an unknown kind (SOP Class)"),
    ],
)
def test_what_calls_itself_ct_and_is_none_is_named(tmp_path, kind, words):
    """It was "expected a CT image but got CT"."""
    folder = series(tmp_path / "s", SOPClassUID=kind)
    refused(next(folder.iterdir()), words)


@pytest.mark.parametrize(
    ("padding", "limit", "words"),
    [
        (0, None, "the header states 0 to 0 HU"),
        (-1024, 500, "the header states -1024 to 500 HU"),
        (-2000, None, ""),
        (-2000, -950, ""),
    ],
)
def test_padding_among_tissue_is_told(tmp_path, padding, limit, words):
    """Such voxels are left as they are; where the range held the whole patient, nothing was denoised, without a word."""
    more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    folder = series(tmp_path / "s", intercept="0", PixelPaddingValue=padding, **more)
    problems = " ".join(opened(folder, tmp_path).problems)
    assert words in problems if words else problems == ""
