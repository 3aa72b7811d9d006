"""Every real scan of ../shared through ``denoise``: the table of docs/how-to/dicom.md."""

import json

import numpy as np
import pydicom
import pytest
from tiny_runs import SHARED
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.series import ScanError, find_scans, read_scan

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="no real CT beside this checkout (../shared/ct)"),
]
SLICES = {
    "dicom/crlm1004": 20,
    "dicom/kits00072": 18,
    "dicom/lungdxA0001_B_run8": 8,
    "dicom/lungdxA0001_L_run8": 8,
    "dicom/nsclcrgR01001_B45f_run8": 8,
    "dicom_odd/DS_exponent_tcga17Z011": 1,
    "dicom_odd/acrinflt001_pad-2000_signed": 5,
    "dicom_odd/acrinflt013_coronal_nonsquare": 5,
    "dicom_odd/cs_syntax_lossless_1_2": 1,
    "dicom_odd/cs_syntax_lossless_1_2_1_99": 1,
    "dicom_odd/cs_syntax_lossless_1_2_2": 1,
    "dicom_odd/cs_syntax_lossless_1_2_4_57": 1,
    "dicom_odd/cs_syntax_lossless_1_2_4_70": 1,
    "dicom_odd/cs_syntax_lossless_1_2_4_90": 1,
    "dicom_odd/cs_syntax_lossless_1_2_5": 1,
    "dicom_odd/decubitus_intercept0_tcga505044": 1,
    "dicom_odd/fractional_slope_tcga17Z028": 1,
    "dicom_odd/ge_head_tilt_varspacing": 5,
    "dicom_odd/pydicom_CT_small": 1,
    "dicom_odd/rtutils_2slices_pad-2000": 2,
    "dicom_odd/rtutils_slope0p001_nonsquare": 3,
}
REFUSED = {
    "dicom_odd/cs_syntax_lossy_1_2_4_51": "decompress the file first",
    "dicom_odd/enhanced_multiframe_eCT": "only 1 x map (Image Type RCBF)",
    "dicom_odd/truncated_pixeldata_lidc0001": "expected a complete DICOM file",
}
DECODED_BY = {"1_2_4_57": "gdcm", "1_2_4_70": "gdcm", "1_2_4_90": "openjpeg"}


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(5.0), tmp_path_factory.mktemp("weights") / "add.ts")


def run(name, out, weights, **options):
    for syntax, decoder in DECODED_BY.items():
        if name.endswith(syntax):
            pytest.importorskip(decoder, reason="needs the extra 'dicom'")
    return denoise_scans(SHARED / name, out, weights=weights, progress=False, **options)


def source_of(dataset, sources):
    """The data set that a result says it was derived from."""
    holder = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        holder = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[-1]
    return sources[holder.SourceImageSequence[0].ReferencedSOPInstanceUID]


def test_every_folder_is_in_the_table():
    folders = {f"{kind}/{path.name}" for kind in ("dicom", "dicom_odd") for path in (SHARED / kind).iterdir()}
    assert folders == set(SLICES) | set(REFUSED)


@pytest.mark.parametrize("name", SLICES)
def test_strength_0_writes_the_stored_values_that_were_read(tmp_path, add, name):
    (result,) = run(name, tmp_path / "out", add, strength=0.0)
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, sorted((SHARED / name).iterdir()))}
    written = [pydicom.dcmread(path) for path in sorted(result.iterdir())]
    assert len(written) == len(sources) == SLICES[name]
    for ds in written:
        before = source_of(ds, sources)
        np.testing.assert_array_equal(ds.pixel_array, before.pixel_array)
        for keyword in ("RescaleSlope", "RescaleIntercept", "PixelRepresentation", "BitsStored", "PixelPaddingValue"):
            assert ds.get(keyword) == before.get(keyword)
    warnings = json.loads(line)["warnings"]
    if name.endswith("ge_head_tilt_varspacing"):
        assert "got steps from 1.14 to 7.38 mm" in warnings[0]
    else:
        assert warnings == []


@pytest.mark.parametrize("name", SLICES)
def test_a_change_arrives_in_every_voxel_but_padding(tmp_path, add, name):
    """5 HU, to half a stored step; where padding or the end of the stored range keeps a voxel, that is counted."""
    (result,) = run(name, tmp_path / "out", add)
    (source,) = find_scans(SHARED / name)
    before, after = (read_scan(each, allow_irregular=True, check_hu=False) for each in (source, result))
    np.testing.assert_array_equal(after.affine, before.affine)
    change = after.hu - before.hu
    step = before.storage.frames[0].slope
    kept = np.abs(change) < 2
    assert np.abs(change[~kept] - 5).max() <= step / 2 + 1e-3
    assert kept.mean() < 0.6
    assert (change[before.padded] == 0).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_denoised_is_one_line(tmp_path, add, name):
    with pytest.raises(ScanError) as caught:
        run(name, tmp_path / "out", add, strength=0.0)
    assert REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_scan_is_refused_for_its_units_when_one_insists(tmp_path, add):
    with pytest.raises(ScanError, match="values stated in ml/100ml/s: a map, not a CT image"):
        run("dicom_odd/enhanced_multiframe_eCT", tmp_path / "out", add, strength=0.0, derived=True)


def test_all_of_them_as_one_archive(tmp_path, add):
    """A failure does not keep the others from being done. The syntaxes are one image, and one copy cannot be decoded."""
    pytest.importorskip("gdcm", reason="needs the extra 'dicom'")
    pytest.importorskip("openjpeg", reason="needs the extra 'dicom'")
    with pytest.raises(ScanError, match="to denoise 11 scans but 2 failed"):
        run("dicom_odd", tmp_path / "out", add, strength=0.0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    errors = {line["source"].split("#")[0]: line["error"] for line in lines}
    assert {name for name, error in errors.items() if error} == {
        "dicom_odd_series002", "enhanced_multiframe_eCT/enhanced_multiframe_eCT_series003",
        "truncated_pixeldata_lidc0001/truncated_pixeldata_lidc0001_series3000566",
    }  # fmt: skip
    assert "12-bit JPEG Extended" in errors["dicom_odd_series002"]
