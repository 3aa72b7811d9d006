"""Volumes whose headers state metres or microns lie where other programs put them, in mm."""

import nibabel as nib
import numpy as np
import pytest
from derive_files import derive
from series_files import nifti, refused

from ct_cncl.transforms.series import find_scans, read_scan, write_nifti
from ct_cncl.transforms.series.slices import open_slices

AFFINE = np.array([[0.48, -0.36, 0, -9.5], [0.36, 0.48, 0, 3.25], [0, 0, 2.0, 71], [0, 0, 0, 1]])
IN_MM = {1: 1000.0, 2: 1.0, 3: 0.001, 0: 1.0}


def stored():
    return np.random.default_rng(0).integers(-1000, 2000, (5, 4, 3)).astype(np.int16)


def scaled(unit):
    return np.diag([unit, unit, unit, 1.0]) @ AFFINE


@pytest.mark.parametrize("seconds", [0, 8])
@pytest.mark.parametrize("code", IN_MM)
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_nifti(tmp_path, code, seconds, form):
    """As ITK reads it, which has mm always; the unit of time stands in the same byte."""
    other = {"sform": "qform", "qform": "sform"}[form]
    path = nifti(tmp_path / "a.nii", stored(), scaled(1 / IN_MM[code]), xyzt_units=code + seconds, **{other: 0})
    np.testing.assert_allclose(read_scan(path).affine, AFFINE, rtol=1e-5, atol=1e-4)
    (source,) = find_scans(path)
    np.testing.assert_allclose(open_slices(source, tmp_path).spacing, [0.6, 0.6, 2.0], rtol=1e-5)
    if code:
        sitk = pytest.importorskip("SimpleITK")
        np.testing.assert_allclose(sitk.ReadImage(str(path)).GetSpacing(), read_scan(path).spacing, rtol=1e-5)
    made, _, _ = derive(path, tmp_path / "w")
    assert made["denoised"].read_bytes() == path.read_bytes()


@pytest.mark.parametrize("code", IN_MM)
def test_written_with_another_affine_the_unit_is_mm(tmp_path, code):
    scan = read_scan(nifti(tmp_path / "a.nii", stored(), scaled(1 / IN_MM[code]), xyzt_units=code + 8))
    moved = scan.affine.copy()
    moved[:3, 3] += 5
    write_nifti(scan.hu, tmp_path / "b.nii", scan, affine=moved)
    np.testing.assert_allclose(read_scan(tmp_path / "b.nii").affine, moved, rtol=1e-5, atol=1e-4)
    assert nib.load(tmp_path / "b.nii").header.get_xyzt_units() == ("mm", "sec")
    write_nifti(scan.hu, tmp_path / "c.nii", scan)
    np.testing.assert_allclose(read_scan(tmp_path / "c.nii").affine, scan.affine, rtol=1e-6)


@pytest.mark.parametrize("code", [4, 7])
def test_unknown_units_are_refused(tmp_path, code):
    refused(nifti(tmp_path / "a.nii", stored(), AFFINE, xyzt_units=code), f"the unknown unit {code}")


def nrrd(path, lines, shape=(5, 4, 3)):
    values = np.full(int(np.prod(shape)), -100, "<i2")
    sizes = " ".join(map(str, shape))
    head = ["NRRD0004", "type: short", f"dimension: {len(shape)}", f"sizes: {sizes}", "encoding: raw", "endian: little"]
    path.write_bytes(("\n".join([*head, *lines, "", ""])).encode() + values.tobytes())
    return path


@pytest.mark.parametrize(
    ("unit", "in_mm"), [("m", 1000.0), ("mm", 1.0), ("cm", 10.0), ("um", 0.001), ("microns", 0.001)]
)
def test_nrrd(tmp_path, unit, in_mm):
    def text(numbers):
        return "(" + ",".join(repr(float(number) / in_mm) for number in numbers) + ")"

    directions = [
        "space: left-posterior-superior",
        f"space directions: {' '.join(text(AFFINE[:3, axis]) for axis in range(3))}",
        f"space origin: {text(AFFINE[:3, 3])}",
        f'space units: "{unit}" "{unit}" "{unit}"',
    ]
    affine = read_scan(nrrd(tmp_path / "a.nrrd", directions)).affine
    np.testing.assert_allclose(affine, np.diag([-1, -1, 1, 1]) @ AFFINE, rtol=1e-9)
    spacings = f"spacings: {0.7 / in_mm!r} {0.8 / in_mm!r} {2.5 / in_mm!r}"
    path = nrrd(tmp_path / "b.nrrd", [spacings, f'units: "{unit}" "{unit}" "{unit}"'])
    np.testing.assert_allclose(read_scan(path).spacing, [0.7, 0.8, 2.5], rtol=1e-9)


def test_headers_that_cannot_be_used_say_why(tmp_path):
    directions = "space directions: (1,0,0) (0,1,0) (0,0,1)"
    refused(
        nrrd(tmp_path / "a.nrrd", ["space dimension: 3", directions]), "directions in no named space, not in one of LPS"
    )
    refused(nrrd(tmp_path / "b.nrrd", ["space: scanner-xyz", directions]), "directions in scanner-xyz")
    refused(nrrd(tmp_path / "c.nrrd", ['units: "inch" "mm" "mm"', "spacings: 1 1 1"]), 'units "inch" "mm" "mm"')
    four = nrrd(tmp_path / "d.nrrd", [f"{directions} none"], shape=(5, 4, 3, 2))
    refused(four, "expected one 3-D volume but got sizes [5, 4, 3, 2]; split it into volumes")
    odd = nrrd(tmp_path / "e.nrrd", [])
    odd.write_bytes(odd.read_bytes().replace(b"type: short", b"type: block"))
    refused(odd, "the unknown type block")
    mha = tmp_path / "f.mha"
    mha.write_bytes(b"NDims = 4\nDimSize = 2 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + bytes(32))
    refused(mha, "expected one 3-D volume but got 4 dimensions")
    mha.write_bytes(b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_LONG\nElementDataFile = LOCAL\n" + bytes(64))
    refused(mha, "a missing or unknown MET_LONG in its header")
