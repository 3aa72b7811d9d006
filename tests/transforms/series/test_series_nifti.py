import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from series_files import nifti

from ct_cncl.transforms.series import ScanError, find_scans, read_scan, write_nifti

PLAIN = np.diag([-0.7, 0.7, 2.5, 1.0])
ANGLE = np.deg2rad(17)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN @ np.roll(TURN, 1, axis=(0, 1)) @ np.diag([0.7, 0.7, 2.5])
OBLIQUE[:3, 3] = -120.5, 33.25, 871.0
AFFINES = {
    "plain": PLAIN,
    "flipped": np.diag([0.7, -0.7, -2.5, 1.0]),
    "oblique": OBLIQUE,
    "sagittal first": np.array([[0, 0, 0.7, 1], [0.7, 0, 0, 2], [0, -0.7, 0, 3], [0, 0, 0, 1.0]]),
    "sheared": np.array([[0.7, 0, 0, 0], [0, 0.7, 0.8, 0], [0, 0, 2.5, 0], [0, 0, 0, 1.0]]),
}


def bytes_of(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [
        ("i2", np.nan, np.nan),
        ("i2", 0, 0),
        ("i2", 1, 0),
        ("i2", 2.5, -1024),
        ("u2", 1, -3024),
        ("u2", 0.25, -3024.5),
        ("i4", 0.001, -1024),
        ("f4", np.nan, np.nan),
        ("f4", 2, -24),
        ("f8", np.nan, np.nan),
    ],
)
def test_round_trip_is_byte_identical(tmp_path, volume, suffix, endian, dtype, slope, inter):
    scale, shift = (float(np.float32(slope)), inter) if slope and np.isfinite(slope) else (1.0, 0.0)
    stored = (volume.astype(np.float64) - shift) / scale
    stored = np.rint(stored) if dtype[0] in "iu" else stored
    path = nifti(tmp_path / f"a{suffix}", stored.astype(dtype), PLAIN, slope, inter, endian=endian, cal_max=77)
    scan = read_scan(path)
    expected = (stored.astype(dtype).astype(np.float64) * scale + shift).astype(np.float32)
    np.testing.assert_array_equal(scan.hu, expected)
    np.testing.assert_array_equal(scan.hu, nib.load(path).get_fdata().astype(np.float32))
    assert scan.hu.dtype == np.float32
    report = write_nifti(scan.hu, tmp_path / f"out{suffix}", scan)
    assert bytes_of(tmp_path / f"out{suffix}") == bytes_of(path)
    assert (report.clipped, report.voxels) == (0, 60)


@pytest.mark.parametrize("name", AFFINES)
def test_affine_comes_back_exactly(tmp_path, volume, name):
    path = nifti(tmp_path / "a.nii.gz", volume.astype(np.int16), AFFINES[name], sform=1, qform=2)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.affine, nib.load(path).affine)
    np.testing.assert_allclose(scan.affine, AFFINES[name], atol=1e-4)
    write_nifti(scan.hu, tmp_path / "b.nii.gz", scan)
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(back.affine, scan.affine)
    np.testing.assert_array_equal(back.get_fdata(), volume)
    assert (back.header["sform_code"], back.header["qform_code"]) == (1, 2)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 1, 1), (5, 4, 3, 1), (1, 4, 3), (2, 2, 300)])
def test_shapes_come_back_exactly(tmp_path, shape):
    stored = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 10
    path = nifti(tmp_path / "a.nii", stored, PLAIN)
    scan = read_scan(path)
    assert scan.hu.shape == (*shape, 1)[:3]
    write_nifti(scan.hu, tmp_path / "b.nii", scan)
    assert (tmp_path / "b.nii").read_bytes() == path.read_bytes()


def test_header_without_codes_keeps_nibabels_base_affine(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", volume.astype(np.int16), PLAIN, sform=0, qform=0)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.affine, nib.load(path).affine)
    write_nifti(scan.hu, tmp_path / "b.nii", scan)
    assert (tmp_path / "b.nii").read_bytes() == path.read_bytes()


def test_extensions_come_back(tmp_path, volume):
    image = nib.Nifti1Image(volume.astype(np.int16), PLAIN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by hand"))
    nib.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    write_nifti(scan.hu, tmp_path / "b.nii", scan)
    assert nib.load(tmp_path / "b.nii").header.extensions[0].get_content() == b"made by hand"
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").get_fdata(), volume)


def test_nifti2_comes_back(tmp_path, volume):
    nib.save(nib.Nifti2Image(volume.astype(np.int16), OBLIQUE), tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    write_nifti(scan.hu, tmp_path / "b.nii", scan)
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()


def bad(tmp_path, volume, kind):
    path, stored = tmp_path / "bad.nii.gz", volume.astype(np.int16)
    if kind == "four":
        return nifti(path, np.stack([stored] * 2, -1), PLAIN)
    if kind == "rgb":
        stored = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(stored, PLAIN), path)
        return path
    if kind == "complex":
        return nifti(path, volume.astype(np.complex64), PLAIN)
    if kind == "nan":
        volume[2, 1, 0] = volume[3, 3, 2] = np.nan
        return nifti(path, volume, PLAIN)
    if kind == "stored":
        return nifti(path, (volume + 3024).astype(np.uint16), PLAIN)
    if kind == "singular":
        return nifti(path, stored, PLAIN, srow_z=[0, 0, 0, 0])
    nifti(path, stored, PLAIN)
    path.write_bytes(path.read_bytes()[:-40] if kind == "truncated" else b"")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("four", "3-D volume but got shape (5, 4, 3, 2)"),
        ("rgb", "got RGB"),
        ("complex", "got complex64"),
        ("nan", "2 NaN or infinite voxels, the first at index (2, 1, 0)"),
        ("stored", "looks like stored values without rescale"),
        ("singular", "invertible affine"),
        ("truncated", "complete NIfTI file"),
        ("empty", "complete NIfTI file"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, volume, kind, words):
    path = bad(tmp_path, volume, kind)
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_truncated_uncompressed_file(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", volume.astype(np.int16), PLAIN)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ScanError, match="complete NIfTI file"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_corrupted_bytes_are_refused_or_read_as_nibabel_reads_them(tmp_path, volume, suffix):
    path = nifti(tmp_path / f"a{suffix}", volume.astype(np.int16), PLAIN)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    read, said = 0, []
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 352), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            scan = read_scan(path)
        except ScanError as error:
            said.append(str(error))
            continue
        read += 1
        expected = nib.load(path).get_fdata()
        np.testing.assert_allclose(scan.hu, expected.reshape(scan.hu.shape), rtol=1e-6)
    assert said
    assert all(re.fullmatch(f"{re.escape(str(path))}.*", text) for text in said)  # one line, which names the file
    assert read or suffix == ".nii.gz"  # whose checksum finds everything


def test_hu_check_can_be_waived_and_lets_constants_pass(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", (volume + 3024).astype(np.uint16), PLAIN)
    np.testing.assert_array_equal(read_scan(path, check_hu=False).hu, volume + 3024)
    nifti(tmp_path / "b.nii", np.zeros((4, 4, 2), np.int16), PLAIN)
    assert not read_scan(tmp_path / "b.nii").hu.any()


def test_find_nifti_sorted_with_subfolders(tmp_path, volume):
    (tmp_path / "sub").mkdir()
    for name in ("b.nii", "a.nii.gz", "sub/c.nii", ".hidden.nii", "notes.txt"):
        if name == "notes.txt":
            (tmp_path / name).write_text("no scan")
        else:
            nifti(tmp_path / name, volume.astype(np.int16), PLAIN)
    found = find_scans(tmp_path)
    assert [(s.name, s.suffix, s.relative) for s in found] == [
        ("a", ".nii.gz", "."),
        ("b", ".nii", "."),
        ("c", ".nii", "sub"),
    ]
    assert [s.name for s in find_scans(tmp_path, recursive=False)] == ["a", "b"]
    assert [str(s) for s in find_scans(tmp_path / "b.nii")] == [str(tmp_path / "b.nii")]
    with pytest.raises(ScanError, match="expected one scan but got 3"):
        read_scan(tmp_path)


def test_nothing_found(tmp_path):
    with pytest.raises(ScanError, match="does not exist"):
        find_scans(tmp_path / "missing")
    with pytest.raises(ScanError, match="an empty folder"):
        find_scans(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ScanError, match="got an archive; unpack it"):
        find_scans(tmp_path / "a.zip")
    with pytest.raises(ScanError, match="only 1 x archives"):
        find_scans(tmp_path)
