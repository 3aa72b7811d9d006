"""Volumes in memory: whatever kind comes in goes out with its geometry, as its file would, and nothing is taken for what it is not."""

import inspect
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from tiny_weights import Steps, scripted, tiny_cncl

from ct_cncl import pipeline
from ct_cncl.pipeline.inference.api import denoise
from ct_cncl.pipeline.inference.memory import given

SHAPE = (24, 20, 6)
AFFINES = {
    "lps": np.diag([-0.7, -0.8, 2.5, 1.0]),
    "ras": np.diag([0.7, 0.8, 2.5, 1.0]),
    "sagittal_first": np.array([[0, 0.7, 0, 5], [0, 0, -0.7, 6], [2.5, 0, 0, 7], [0, 0, 0, 1.0]]),
}


def hu(shape=SHAPE, dtype=np.int16):
    volume = np.random.default_rng(5).integers(-1000, 300, shape).astype(dtype)
    volume.flat[0] = -1000
    return volume


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Weights that change each column by another amount: they show how a slice lay."""
    return scripted(Steps(), tmp_path_factory.mktemp("weights") / "steps.ts")


@pytest.fixture(scope="module")
def cncl(tmp_path_factory):
    return tiny_cncl(tmp_path_factory.mktemp("cncl"))[0]


@pytest.mark.parametrize(("axes", "order"), [("xyz", (0, 1, 2)), ("zyx", (2, 1, 0)), ("yxz", (1, 0, 2))])
def test_each_order_of_axes_gives_the_same_image(steps, axes, order):
    volume = hu()
    expected = denoise(volume, weights=steps)
    assert np.array_equal(expected - volume, np.broadcast_to((expected - volume)[:, :1, :1], SHAPE))
    assert len(np.unique((expected - volume)[:, 0, 0])) > 5
    np.testing.assert_array_equal(denoise(volume.transpose(order), weights=steps, axes=axes), expected.transpose(order))


@pytest.mark.parametrize("shape", [(24, 24, 6), (24, 24, 40), (24, 20, 6)])
def test_slices_first_are_seen_by_the_shape(steps, shape):
    """Of SimpleITK's order; it used to be denoised along the wrong axis without a word."""
    volume = hu(shape)
    np.testing.assert_array_equal(denoise(volume.T, weights=steps), denoise(volume, weights=steps, axes="xyz").T)


@pytest.mark.parametrize("shape", [(24, 24, 24), (24, 6, 24), (24, 20, 16), (20, 24, 20)])
def test_shapes_that_do_not_show_it_are_asked_about(steps, shape):
    with pytest.raises(ValueError, match=r"which axis runs through the slices.*axes='xyz'.*axes='zyx'"):
        denoise(hu(shape), weights=steps)
    assert denoise(hu(shape), weights=steps, axes="zyx").shape == shape


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (hu(dtype=np.float32) / 4096 + 0.3, "scaled to"),
        ((hu(dtype=np.float32) + 1000) / 1300, "from 0 to .* scaled to 0.*undo"),
        (hu() + 1024, "from 24 to .* slope and intercept"),
        (np.where(np.arange(6) == 2, np.nan, hu(dtype=np.float32)), "finite HU, but got 480 NaN"),
        (hu((24, 20)), r"three axes.*\(24, 20\).*volume\[..., None\]"),
        (hu((2, 24, 20, 6)), "2 volumes one by one"),
        (hu((24, 20, 6, 1)), r"channel comes last here: pass volume\[..., 0\]"),
        (hu((1, 1, 24, 20, 6)), "volumes of the batch one by one"),
        (hu((24, 20, 0 + 1))[..., :0], r"voxels, but got shape \(24, 20, 0\)"),
        (hu().astype(complex), "one real number per voxel, in HU, but got complex128"),
        (hu() < 0, "one real number per voxel, in HU, but got bool"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_what_is_no_volume_in_hu_is_refused_with_its_cause(steps, volume, words, kind):
    with pytest.raises(ValueError, match=words):
        denoise(kind(volume), weights=steps)


def test_other_kinds_are_refused_by_name(steps):
    with pytest.raises(TypeError, match="SimpleITK image, or a path with out=FOLDER, but got Nifti1Image"):
        denoise(nib.Nifti1Image(hu(), np.eye(4)), weights=steps)
    with pytest.raises(TypeError, match="but got list"):
        denoise(hu().tolist(), weights=steps)


def test_what_holds_no_number_for_each_voxel_is_refused(steps):
    """torch's own words were of storage and of data pointers; the mask was dropped."""
    volume = torch.from_numpy(hu(dtype=np.float32))
    kinds = {"meta": volume.to("meta"), "torch.sparse_coo": volume.to_sparse()}
    kinds["quantized"] = torch.quantize_per_tensor(volume, 1.0, 0, torch.qint32)
    for kind, odd in kinds.items():
        with pytest.raises(ValueError, match=f"a number for each voxel, but got a {kind} one"):
            denoise(odd, weights=steps)
    with pytest.raises(TypeError, match="without a mask"):
        denoise(np.ma.masked_less(hu(), -900), weights=steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"save": 3}, "removed, but got 3"),
        ({"batch_size": 1.5}, "batch size of at least 1, but got 1.5"),
        ({"batch_size": "2"}, "batch size of at least 1, but got '2'"),
        ({"threads": "2"}, "at least 1 thread, but got '2'"),
        ({"axes": "zxyw"}, "axes to be one of xyz, zyx, yxz"),
        ({"save": "gate"}, "noise, content, disagreement, removed, but got gate"),
        ({"out": "somewhere"}, "Expected out with a path only"),
        ({"series": "3", "overwrite": True}, "Expected series, overwrite with a path only"),
    ],
)
def test_options_that_would_be_ignored_are_refused(steps, options, words):
    with pytest.raises(ValueError, match=words):
        denoise(hu(), weights=steps, **options)
    with pytest.raises(TypeError, match="strenght"):
        denoise(hu(), weights=steps, strenght=0.5)


def file_and_result(tmp_path, affine, dtype, **options):
    nib.save(nib.Nifti1Image(hu(dtype=dtype), affine), tmp_path / "scan.nii")
    (path,) = denoise(tmp_path / "scan.nii", tmp_path / "out", progress=False, **options)
    return tmp_path / "scan.nii", np.asanyarray(nib.load(path).dataobj)


@pytest.mark.parametrize("channel_first", [False, True])
@pytest.mark.parametrize("name", AFFINES)
def test_a_meta_tensor_gives_what_its_file_gives_and_keeps_its_geometry(tmp_path, steps, name, channel_first):
    path, expected = file_and_result(tmp_path, AFFINES[name], np.float32, weights=steps)
    volume = LoadImage(ensure_channel_first=channel_first, image_only=True)(path)
    assert isinstance(volume, MetaTensor)
    result = denoise(volume, weights=steps)
    assert type(result) is MetaTensor
    assert result.shape == volume.shape
    assert result.dtype == volume.dtype
    assert torch.equal(result.affine, volume.affine)
    assert result.meta["filename_or_obj"] == volume.meta["filename_or_obj"]
    np.testing.assert_array_equal(np.asarray(result)[0] if channel_first else np.asarray(result), expected)
    np.testing.assert_array_equal(np.asarray(volume).reshape(SHAPE), hu(dtype=np.float32))  # the input is not changed


def test_a_turned_meta_tensor_is_turned_back_by_its_affine(tmp_path, steps):
    path, expected = file_and_result(tmp_path, AFFINES["lps"], np.float32, weights=steps)
    turned = Orientation("SAR")(LoadImage(ensure_channel_first=True, image_only=True)(path))
    assert turned.shape == (1, 6, 20, 24)
    back = Orientation("LPS")(denoise(turned, weights=steps))
    np.testing.assert_array_equal(np.asarray(back)[0], expected)


def test_a_meta_tensor_without_geometry_is_an_array(steps):
    volume = MetaTensor(torch.from_numpy(hu()))
    result = denoise(volume, weights=steps)
    assert type(result) is MetaTensor
    np.testing.assert_array_equal(result.numpy(), denoise(hu(), weights=steps))
    with pytest.raises(ValueError, match="which axis"):
        denoise(MetaTensor(torch.from_numpy(hu((24, 24, 24)))), weights=steps)


def test_axes_against_an_affine_are_refused(steps):
    volume = MetaTensor(torch.from_numpy(hu()), affine=AFFINES["lps"])
    with pytest.raises(ValueError, match="the affine says how the slices lie"):
        denoise(volume, weights=steps, axes="zyx")


@pytest.mark.parametrize("name", AFFINES)
def test_a_simpleitk_image_gives_what_its_file_gives_and_keeps_its_geometry(tmp_path, steps, name):
    path, expected = file_and_result(tmp_path, AFFINES[name], np.int16, weights=steps)
    image = SimpleITK.ReadImage(str(path))
    image.SetMetaData("note", "kept")
    result = denoise(image, weights=steps)
    assert isinstance(result, SimpleITK.Image)
    assert result.GetPixelID() == image.GetPixelID()
    for each in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(result, each)() == getattr(image, each)()
    assert result.GetMetaData("note") == "kept"
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result).T, expected)


def test_simpleitk_images_that_are_no_volumes_are_refused(steps):
    flat = SimpleITK.GetImageFromArray(hu((24, 20)))
    with pytest.raises(ValueError, match="but got 2 axes and 1 numbers.*JoinSeries"):
        denoise(flat, weights=steps)
    with pytest.raises(ValueError, match="no axes for a SimpleITK image"):
        denoise(SimpleITK.GetImageFromArray(hu()), weights=steps, axes="zyx")


@pytest.mark.parametrize("save", ["noise", "noise,removed", ("noise", "removed"), ["noise"]])
def test_maps_are_what_the_files_hold(tmp_path, cncl, save):
    """They used to be accepted and dropped; "noise" was taken for five letters."""
    _, expected = file_and_result(tmp_path, AFFINES["lps"], np.float32, weights=cncl, save=save)
    found = denoise(hu(dtype=np.float32), weights=cncl, save=save)
    assert list(found) == ["denoised", "noise"] + ["removed"] * ("removed" in save)
    np.testing.assert_array_equal(found["denoised"], expected)
    for kind in list(found)[1:]:
        assert found[kind].dtype == np.float32
        written = np.asanyarray(nib.load(tmp_path / "out" / f"scan_{kind}.nii").dataobj)
        np.testing.assert_array_equal(found[kind], written)
    assert np.abs(found["noise"]).max() > 1


def test_maps_keep_kind_and_geometry(cncl):
    image = SimpleITK.GetImageFromArray(hu().T)
    image.SetSpacing((0.7, 0.7, 2.5))
    found = denoise(image, weights=cncl, save="removed")
    assert found["removed"].GetSpacing() == (0.7, 0.7, 2.5)
    assert found["removed"].GetPixelID() == SimpleITK.sitkFloat32
    after, removed = (SimpleITK.GetArrayFromImage(found[kind]).T for kind in ("denoised", "removed"))
    np.testing.assert_array_equal(after + removed, hu())
    tensor = denoise(MetaTensor(torch.from_numpy(hu())[None], affine=AFFINES["ras"]), weights=cncl, save="noise")
    assert tensor["noise"].dtype == torch.float32
    assert torch.equal(tensor["noise"].affine, torch.from_numpy(AFFINES["ras"]))
    assert tensor["denoised"].dtype == torch.int16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_tensors_keep_their_type(steps, dtype):
    volume = torch.from_numpy(hu()).to(dtype).requires_grad_(dtype.is_floating_point)
    result = denoise(volume, weights=steps)
    assert result.dtype == dtype
    assert not result.requires_grad


def test_scans_unlike_the_training_data_are_warned_of(tmp_path, steps):
    """The same words as for files, as far as the geometry is known."""
    (tmp_path / "trained_on.json").write_text('{"pixel_mm": [0.5, 0.6], "hu": [-500, 100]}')
    weights = scripted(Steps(), tmp_path / "steps.ts")
    with pytest.warns(UserWarning, match="exceed the -500 to 100 HU of the training data") as seen:
        denoise(hu(), weights=weights)
    (said,) = [each for each in seen if "training data" in str(each.message)]
    assert said.filename == __file__
    with pytest.warns(UserWarning, match=r"pixels of 0.8 mm lies outside the 0.5 to 0.6 mm"):
        denoise(MetaTensor(torch.from_numpy(hu()), affine=AFFINES["ras"]), weights=weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        denoise(hu(), weights=steps)


def test_the_options_document_themselves():
    parameters = inspect.signature(pipeline.denoise).parameters
    kinds = {parameter.kind for name, parameter in parameters.items() if name not in ("source", "out")}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    for name in parameters:
        assert f"\n        {name}: " in pipeline.denoise.__doc__
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())


def test_given_is_a_view():
    volume = hu()
    assert np.shares_memory(given(volume).slices, volume)
