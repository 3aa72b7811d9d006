"""MHA, NRRD, TIFF and NPY: read as other programs read them, written back the same, packed ones through scratch."""

import re

import numpy as np
import pytest
from derive_files import derive
from series_files import nifti

from ct_cncl.transforms.series import ScanError, find_scans, read_scan
from ct_cncl.transforms.series.slices import open_slices

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def volume(dtype="int16", shape=(3, 4, 5)):
    """(slices, rows, columns), some below 0 where the type can."""
    dtype = np.dtype(dtype)
    low, high = (
        (-1000, 3000) if dtype.kind == "f" else (max(np.iinfo(dtype).min, -1000), min(np.iinfo(dtype).max, 3000))
    )
    return np.random.default_rng(7).integers(low, high, shape).astype(dtype)


def itk_file(path, array, *, compressed=False, spacing=(0.7, 0.8, 2.5)):
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files to compare with")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-10.0, 20.0, 300.0))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


def itk_read(path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image


def itk_affine(image):
    """Voxel to RAS, from what ITK says (LPS)."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_mha_and_nrrd_as_itk_reads_them(tmp_path, suffix, dtype, compressed):
    array = volume(dtype)
    path = itk_file(tmp_path / f"a.{suffix}", array, compressed=compressed)
    scan = read_scan(path, check_hu=False)
    np.testing.assert_array_equal(scan.hu, array.transpose(2, 1, 0))
    np.testing.assert_allclose(scan.affine, itk_affine(itk_read(path)[1]), atol=1e-9)
    made, writer, _ = derive(path, tmp_path / "w")
    result = made["denoised"].rename(tmp_path / f"out.{suffix}")
    found, image = itk_read(result)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    np.testing.assert_allclose(itk_affine(image), itk_affine(itk_read(path)[1]))
    assert {kind: found.count for kind, found in writer.clipped.items()} == {"denoised": 0}


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_changes_reach_their_voxel_in_mha_and_nrrd(tmp_path, suffix):
    array = volume()
    path = itk_file(tmp_path / f"a.{suffix}", array)

    def add_at_top_left(hu):
        changed = hu.copy()
        changed[0, 0] += 40.4
        return changed

    made, _, slices = derive(path, tmp_path / "w", add_at_top_left)
    found, _ = itk_read(made["denoised"].rename(tmp_path / f"out.{suffix}"))
    change = (found - array).transpose(2, 1, 0)
    turned = slices.order.apply(change)
    assert (turned[0, 0] == 40).all()
    assert np.count_nonzero(change) == 3


def test_nrrd_that_names_another_space(tmp_path):
    header = (
        "NRRD0005\n# made by hand\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 2 1\n"
        "space directions: (0.5,0,0) (0,0.75,0) (0,0,3)\nkinds: domain domain domain\nendian: big\nencoding: raw\n"
        "space origin: (1,2,3)\nnote:=kept as it is\n\n"
    )
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + np.array([-5, 6, 7, 8], ">i2").tobytes())
    scan = read_scan(path)
    assert scan.hu[..., 0].T.tolist() == [[-5, 6], [7, 8]]
    np.testing.assert_array_equal(scan.affine, [[0.5, 0, 0, 1], [0, 0.75, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
    made, _, _ = derive(path, tmp_path / "w")
    assert made["denoised"].read_bytes() == path.read_bytes()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_npy(tmp_path, shape, order):
    array = np.asarray(volume("int16", shape), order=order)
    np.save(tmp_path / "a.npy", array)
    scan = read_scan(tmp_path / "a.npy")
    np.testing.assert_array_equal(scan.hu, np.atleast_3d(array.T))
    made, _, slices = derive(tmp_path / "a.npy", tmp_path / "w", lambda hu: hu + 1.6)
    result = made["denoised"].rename(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(result), array + 2)
    assert slices.count == (1 if len(shape) == 2 else 3)
    np.testing.assert_array_equal(slices.read(0).hu, np.atleast_3d(array.T)[..., 0])  # as a viewer shows it


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["<u2", ">i2", "<f4"])
def test_tiff(tmp_path, dtype, compression):
    tifffile = pytest.importorskip("tifffile")
    array = volume(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=dtype[0], compression=compression, photometric="minisblack")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif", check_hu=False).hu, array.transpose(2, 1, 0))
    made, _, _ = derive(tmp_path / "a.tif", tmp_path / "w", lambda hu: hu + 3)
    result = tifffile.imread(made["denoised"])
    np.testing.assert_array_equal(result, np.where(array <= -1500, array, array + 3))
    assert result.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")


def test_maps_of_a_volume_are_signed_hu_in_fine_steps(tmp_path):
    path = nifti(tmp_path / "a.nii", volume("uint16").T.copy(), np.diag([1, 1, 2, 1.0]), 1, -1024)
    kinds = ("noise", "content", "disagreement")
    made, _, _ = derive(path, tmp_path / "w", lambda hu: np.full_like(hu, -33.6), kinds=kinds)
    for kind, expected in zip(kinds, (-33.625, -34, -33.625)):
        image = read_scan(made[kind].rename(tmp_path / f"{kind}.nii"))
        assert image.storage.header.get_data_dtype() == np.int16
        assert np.unique(image.hu).tolist() == [expected]


def test_maps_of_a_format_without_a_slope_are_floats(tmp_path):
    """Whole HU would show nothing of a disagreement, and steps would be taken for HU."""
    itk_file(tmp_path / "a.mha", volume())
    kinds = ("noise", "content")
    made, _, _ = derive(tmp_path / "a.mha", tmp_path / "w", lambda hu: np.full_like(hu, -33.6), kinds=kinds)
    for kind, expected in zip(kinds, (np.float32(-33.6), -34)):
        assert np.unique(read_scan(made[kind].rename(tmp_path / f"{kind}.mha")).hu).tolist() == [expected]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
@pytest.mark.parametrize("slope", [1.0, 0.25, 3.0])
def test_source_is_result_and_what_was_removed(tmp_path, dtype, slope):
    stored = (np.arange(120) * 2 + 3).reshape(6, 5, 4).astype(dtype)
    path = nifti(tmp_path / "a.nii", stored, np.diag([1, 1, 2, 1.0]), slope, -1024)
    made, _, _ = derive(path, tmp_path / "w", lambda hu: hu * np.float32(0.99) - 3, kinds=("denoised", "removed"))
    result = read_scan(made["denoised"].rename(tmp_path / "r.nii")).hu
    removed = read_scan(made["removed"].rename(tmp_path / "m.nii"), check_hu=False).hu
    assert np.abs(removed).max() > 1
    np.testing.assert_array_equal(result + removed, read_scan(path).hu)


def test_clipping_of_a_volume_is_counted(tmp_path):
    path = nifti(tmp_path / "a.nii", volume("uint16").T.copy(), np.diag([1, 1, 2, 1.0]), 1, -1024)
    made, writer, _ = derive(path, tmp_path / "w", lambda hu: hu + 64000)
    stored = read_scan(made["denoised"].rename(tmp_path / "n.nii"), check_hu=False).hu
    assert stored.max() == 65535 - 1024
    assert writer.clipped["denoised"].count == int((volume("uint16").astype(int) + 64000 > 65535).sum()) > 0


def test_volumes_in_a_folder_and_those_that_must_be_named(tmp_path):
    itk_file(tmp_path / "b.nrrd", volume())
    itk_file(tmp_path / "c.mha", volume())
    np.save(tmp_path / "d.npy", volume())
    nifti(tmp_path / "a.nii", volume().T.copy(), np.diag([1, 1, 2, 1.0]))
    assert [source.kind for source in find_scans(tmp_path)] == ["nifti", "nrrd", "mha"]
    assert find_scans(tmp_path / "d.npy")[0].kind == "npy"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mha", b"", "complete volume file"),
        ("a.mha", b"NDims = 3\nDimSize = 2 2\nElementDataFile = LOCAL\n", "complete volume file"),
        ("a.mha", b"DimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = a.raw\n", "expected one 3-D volume"),
        ("a.mha", b"DimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\nxx", "too short"),
        ("a.nrrd", b"NRRD0004\ntype: int16\nsizes: 2 2\ndata file: b.raw\n\n", "voxels lie in another file"),
        ("a.nrrd", b"NRRD0004\ntype: int16\nsizes: 3 2 2 2\nencoding: raw\n\n", "expected one 3-D volume"),
        ("a.nrrd", b"NRRD0004\ntype: block\nsizes: 2 2\nencoding: raw\n\n", "complete volume file"),
        ("a.nrrd", b"NRRD0004\ntype: int16\nsizes: 2 2\nencoding: gzip\n\nno gzip", "complete volume file"),
        ("a.nrrd", b"JPEG", "complete volume file"),
        ("a.npy", b"\x93NUMPY", "complete volume file"),
        ("a.tif", b"II*\0", "complete volume file"),
        ("a.mhd", b"", "expected .mha but got a header/image pair"),
        ("a.nhdr", b"", "expected .nrrd but got a header/image pair"),
    ],
)
def test_volumes_that_cannot_be_read(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ScanError, match=words) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["mha", "nrrd", "nii.gz", "npy"])
def test_corrupted_volumes_are_refused_or_give_whole_slices(tmp_path, kind):
    if kind == "npy":
        path = tmp_path / "a.npy"
        np.save(path, volume())
    elif kind == "nii.gz":
        path = nifti(tmp_path / "a.nii.gz", volume().T.copy(), np.diag([1, 1, 2, 1.0]))
    else:
        path = itk_file(tmp_path / f"a.{kind}", volume(), compressed=True)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    (source,) = find_scans(path)
    read, said = 0, []
    for k in range(120):
        data = bytearray(whole[: rng.integers(len(whole))] if k % 3 == 0 else whole)
        for place in rng.integers(0, max(len(data), 1), 1 + k % 2 * 2 if data else 0):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        scratch = tmp_path / f"s{k}"
        scratch.mkdir()
        try:
            slices = open_slices(source, scratch)
            for number in range(min(slices.count, 5)):
                hu = slices.read(number).hu
                assert hu.ndim == 2
                assert np.isfinite(hu).all()
                read += 1
        except ScanError as error:
            said.append(str(error))
    assert read or kind == "nii.gz"  # whose checksum finds everything
    assert said
    assert all(re.fullmatch(f"{re.escape(str(path))}.*", text) for text in said)  # one line, which names the file


def test_packed_volumes_lie_in_scratch_alone(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", volume().T.copy(), np.diag([1, 1, 2, 1.0]))
    (tmp_path / "s").mkdir()
    slices = open_slices(find_scans(path)[0], tmp_path / "s")
    assert [entry.name for entry in (tmp_path / "s").iterdir()] == ["voxels"]
    np.testing.assert_array_equal(slices.read(1).hu, slices.order.apply(volume().T)[..., 1])


def test_a_bomb_is_not_unpacked(tmp_path):
    """A packed file that holds more than its header states fills no disk."""
    import gzip

    path = nifti(tmp_path / "a.nii", volume().T.copy(), np.diag([1, 1, 2, 1.0]))
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes() + b"\0" * (50 << 20)))
    (tmp_path / "s").mkdir()
    open_slices(find_scans(packed)[0], tmp_path / "s")
    assert sum(entry.stat().st_size for entry in (tmp_path / "s").iterdir()) == path.stat().st_size


def test_an_npy_with_an_endless_header_gets_no_advice_to_trust_it(tmp_path):
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (4, 4), " + b" " * 20_000 + b"}\n"
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(32)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ScanError, match=r"Header info length .* is large") as refused:
        read_scan(tmp_path / "a.npy")
    assert "allow_pickle" not in str(refused.value)
