"""DICOM headers that state less, other or more than their file holds: right values, or one line that names the field."""

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from enhanced_files import item, valid_enhanced
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless
from series_files import ct_series, ct_slice, refused, save

from ct_cncl.transforms.series import find_scans, read_scan
from ct_cncl.transforms.series.dicom import open_stacks
from ct_cncl.transforms.series.slices import open_slices


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


def opened(path, scratch):
    (source,) = find_scans(path)
    return open_slices(source, scratch)


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
        (30000, None, ""),
    ],
)
def test_padding_among_tissue_is_told(tmp_path, padding, limit, words):
    """Such voxels are left as they are; where the range held the whole patient, nothing was denoised, without a word."""
    more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    folder = series(tmp_path / "s", intercept="0", PixelPaddingValue=padding, **more)
    problems = " ".join(opened(folder, tmp_path).problems)
    assert words in problems if words else problems == ""
