"""Marks in volume files: a result says what it is, whatever it is called and wherever it lies."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from derive_files import derive
from series_files import nifti

from ct_cncl.transforms.series.derivation import KINDS
from ct_cncl.transforms.series.find import search
from ct_cncl.transforms.series.marks import mark_of, marked_kind
from ct_cncl.transforms.series.origin import origin_of_file

HU = np.random.default_rng(5).integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
"""(slices, rows, columns)."""
BRIEF = "NRRD0001\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n\n"


def volume(path):
    if path.name.endswith((".nii", ".nii.gz")):
        return nifti(path, HU.T, np.diag([-0.7, -0.7, 2.0, 1.0]))
    if path.suffix in (".tif", ".tiff"):
        pytest.importorskip("tifffile").imwrite(path, HU, photometric="minisblack")
    elif path.name == "first.nrrd":
        path.write_bytes(BRIEF.encode() + HU.tobytes())
    else:
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(HU), str(path), useCompression=path.stem == "packed")
    return path


def values(path):
    """(slices, rows, columns) as other programs read them."""
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asanyarray(nib.load(path).dataobj).T
    if path.suffix in (".tif", ".tiff"):
        return pytest.importorskip("tifffile").imread(path)
    sitk = pytest.importorskip("SimpleITK")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


NAMES = ["a.nii", "a.nii.gz", "a.mha", "packed.mha", "a.nrrd", "packed.nrrd", "first.nrrd", "a.tif"]


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_known_without_its_record_and_under_another_name(tmp_path, name):
    path = volume(tmp_path / name)
    assert marked_kind(path) == ""
    made, _, _ = derive(path, tmp_path / "w", lambda hu: hu + 5.0, kinds=tuple(KINDS))
    for kind in KINDS:
        moved = tmp_path / f"renamed_{kind}_{name}"
        shutil.copy(made[kind], moved)
        assert origin_of_file(moved).what == f"result of ct-cncl ({kind})"
    np.testing.assert_array_equal(values(tmp_path / f"renamed_denoised_{name}"), HU + 5)


@pytest.mark.parametrize("name", NAMES)
def test_what_equals_its_source_is_not_marked_and_a_result_of_a_result_bears_one_mark(tmp_path, name):
    path = volume(tmp_path / name)
    same, _, _ = derive(path, tmp_path / "w0")
    shutil.copy(same["denoised"], tmp_path / f"same_{name}")
    assert marked_kind(tmp_path / f"same_{name}") == ""
    first, _, _ = derive(path, tmp_path / "w1", lambda hu: hu + 5.0, kinds=("denoised", "removed"))
    shutil.copy(first["removed"], tmp_path / f"removed_{name}")
    second, _, _ = derive(tmp_path / f"removed_{name}", tmp_path / "w2", lambda hu: hu + 5.0)
    shutil.copy(second["denoised"], tmp_path / f"again_{name}")
    assert marked_kind(tmp_path / f"again_{name}") == "denoised"
    assert b"ct-cncl removed" not in (tmp_path / f"again_{name}").read_bytes()


def test_nifti_keeps_every_byte_but_voxels_and_mark(tmp_path):
    path = volume(tmp_path / "a.nii")
    made, _, _ = derive(path, tmp_path / "w", lambda hu: hu + 5.0)
    before, after = path.read_bytes(), made["denoised"].read_bytes()
    assert len(before) == len(after)
    assert before[:328] + before[344:352] == after[:328] + after[344:352]
    assert after[328:344] == b"ct-cncl denoised"


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_of_both_versions_and_byte_orders(tmp_path, kind, endian):
    header = kind.header_class(endianness=endian)
    header["intent_name"] = mark_of("noise").encode()
    image = kind(HU.T, np.eye(4), header)
    nib.save(image, tmp_path / "a.nii.gz")
    assert marked_kind(tmp_path / "a.nii.gz") == "noise"


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 3, b"NRRD", b"ObjectType = Image\nct-cncl", gzip.compress(b"\x5c\x01\0\0", mtime=0)],
    ids=["empty", "three bytes", "NRRD", "MHA", "gzip"],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.tif", "a.npy"])
def test_what_cannot_be_read_is_marked_by_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert marked_kind(tmp_path / name) == ""


def test_voxels_that_spell_a_mark_are_none(tmp_path):
    path = tmp_path / "a.mha"
    head = "ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(head.encode() + b"\nct-cncl = ct-cncl denoised\n".ljust(1024, b"\0"))
    assert not search(path).derived
