"""Denoising slice by slice: what the network gives arrives in the files, at its place, by strength, rounded; nothing else changes."""

import json
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from tiny_weights import Add, MeanOfThree, scripted, tiny_cncl

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.inference.api import denoise, denoise_scans
from ct_cncl.pipeline.inference.streaming import Settings, apply_network, batch_for
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.transforms.common.hu import to_hu, to_network
from ct_cncl.transforms.series import ScanError, read_scan

CPU = torch.device("cpu")


def volume(shape=(21, 18, 5), low=-1000, high=1500, seed=0):
    hu = np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)
    hu.flat[0] = low
    return hu


def nifti(path, hu, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 2.5, 1.0]) if affine is None else affine), path)
    return path


def dicom(folder, hu, *, spacing=2.5, **changes):
    """A classic series of HU (columns, rows, slices), 12 bits, unsigned."""
    from pydicom.dataset import Dataset, FileMetaDataset

    folder.mkdir(parents=True, exist_ok=True)
    own = zlib.crc32("/".join(folder.parts[-2:]).encode())
    for k in range(hu.shape[2]):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{own}.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", f"1.2.4.{own}"
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.PatientID = "CT", 2, k + 1, "Zaphod"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Rows, ds.Columns, ds.SamplesPerPixel = hu.shape[1], hu.shape[0], 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [0.7, 0.7], 2.5, [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, spacing * k]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        ds.PixelData = (hu[..., k].T + 1024).astype("<u2").tobytes()
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        ds.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


def stored(path):
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def cncl(tmp_path_factory):
    return tiny_cncl(tmp_path_factory.mktemp("cncl"))


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripted")
    return {hu: scripted(Add(hu), folder / f"add{hu}.ts") for hu in (0.0, 10.6, 5000.0)}


def expected_of(network, hu):
    """The plain way: all slices at once, in the canonical direction."""
    with torch.no_grad():
        slices = torch.from_numpy(np.moveaxis(hu, 2, 0)[:, None].astype(np.float32))
        branches = network.branches(to_network(slices))
        images = {"denoised": to_hu(branches.fused), "noise": branches.noise * 4096, "content": to_hu(branches.content)}
        images["disagreement"] = (images["content"] - (slices - images["noise"])).abs()
        return {name: np.moveaxis(image[:, 0].numpy(), 0, 2) for name, image in images.items()}


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_result_and_branches_equal_the_network(tmp_path, cncl, strength, batch_size):
    """Within 1 HU: batches of another size may differ in the last bit of a float, and so in rounding."""
    weights, network = cncl
    hu = volume(high=300)
    save = ("noise", "content", "disagreement")
    (path,) = denoise_scans(
        nifti(tmp_path / "a.nii", hu),
        tmp_path / "out",
        weights=weights,
        strength=strength,
        save=save,
        batch_size=batch_size,
        progress=False,
    )
    expected = expected_of(network, hu)
    wanted = hu + strength * (expected["denoised"] - hu)
    assert np.abs(expected["denoised"] - hu).max() > 20
    assert np.abs(stored(path) - wanted).max() <= 0.5 + 1e-2
    for kind in save:
        image = nib.load(tmp_path / "out" / f"a_{kind}.nii")
        assert image.get_data_dtype() == np.int16
        assert np.abs(image.get_fdata() - expected[kind]).max() <= 0.5 + 1e-2
    if strength == 0:
        assert path.read_bytes() == (tmp_path / "a.nii").read_bytes()


def test_strength_0_needs_no_network_and_changes_no_bit_of_dicom(tmp_path, add):
    source = dicom(tmp_path / "in", volume(), BitsStored=16, HighBit=15)
    (result,) = denoise_scans(source, tmp_path / "out", weights=add[5000.0], strength=0.0, progress=False)
    for before, after in zip(sorted(source.iterdir()), sorted(result.iterdir())):
        assert pydicom.dcmread(before).PixelData == pydicom.dcmread(after).PixelData


def test_changes_are_rounded_and_clipping_is_reported(tmp_path, add, capsys):
    source = dicom(tmp_path / "in", volume())
    (result,) = denoise_scans(source, tmp_path / "a", weights=add[10.6], progress=False)
    np.testing.assert_array_equal(read_scan(result).hu - read_scan(source).hu, 11)
    (result,) = denoise_scans(source, tmp_path / "b", weights=add[5000.0], progress=False)
    assert (read_scan(result, check_hu=False).hu == 4095 - 1024).all()
    assert (
        f"{volume().size} of {volume().size} voxels of denoised (100 %) clipped to 3071 HU" in capsys.readouterr().err
    )
    record = json.loads((tmp_path / "b" / "in_series002_denoised.json").read_text())
    assert record["clipped_voxels"] == {"denoised": volume().size}


def test_padding_leaves_as_it_came_and_has_no_noise(tmp_path, cncl):
    hu = volume()
    hu[:4] = -2000
    (path,) = denoise_scans(
        nifti(tmp_path / "a.nii", hu), tmp_path / "out", weights=cncl[0], save=("noise", "disagreement"), progress=False
    )
    assert (stored(path)[:4] == -2000).all()
    assert (stored(path)[4:] != hu[4:]).mean() > 0.5
    for kind in ("noise", "disagreement"):
        image = stored(tmp_path / "out" / f"a_{kind}.nii")
        assert not image[:4].any()
        assert image[4:].any()


@pytest.mark.parametrize("padding", [-1024, -2000, -3024])
@pytest.mark.parametrize("ways", ["file", "memory"])
def test_how_a_scanner_pads_changes_no_pixel_inside(tmp_path, cncl, padding, ways):
    """Networks see padding as -1024 HU: as -3024 it removed up to 136 HU along the edge of the field of view."""
    weights, network = cncl
    circle = np.hypot(*np.mgrid[-31.5:32, -31.5:32]) > 31.6
    hu = np.random.default_rng(2).integers(20, 60, (64, 64, 2)).astype(np.float32)
    hu[20:30, 20:30] = -1000
    seen, given = (np.where(circle[..., None], np.float32(value), hu) for value in (-1024, padding))
    wanted = np.where(circle[..., None], padding, expected_of(network, seen)["denoised"])
    if ways == "memory":
        found = denoise(given, weights=weights)
    else:
        source = nifti(tmp_path / "a.nii", given, np.diag([-1, -1, 2, 1]))
        found = stored(denoise_scans(source, tmp_path / "out", weights=weights, progress=False)[0])
    assert np.abs(found - wanted).max() < 0.01
    assert np.abs(wanted - given)[~circle].max() > 5


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_networks_of_three_slices_see_their_neighbours_in_order(tmp_path, kind, flipped):
    """Neighbours go from feet to head, whichever way the file runs; the ends see themselves."""
    weights = scripted(MeanOfThree(), tmp_path / "three.ts")
    hu = np.broadcast_to(np.array([-800, -400, 0, 80, 240, 800], np.int16), (8, 7, 6)).copy()
    if kind == "nifti":
        source = nifti(tmp_path / "a.nii", hu, np.diag([-1, -1, -2.0 if flipped else 2.0, 1]))
    else:
        source = dicom(tmp_path / "in", hu, spacing=-2.5 if flipped else 2.5)
    (path,) = denoise_scans(source, tmp_path / "out", weights=weights, batch_size=2, progress=False)
    rising = hu[0, 0, ::-1].astype(float) if flipped else hu[0, 0].astype(float)
    around = np.concatenate([rising[:1], rising, rising[-1:]])
    expected = (around[:-2] + 2 * around[1:-1] + 5 * around[2:]) / 8
    found = stored(path)[0, 0] if kind == "nifti" else read_scan(path).hu[0, 0]
    found = found[::-1] if flipped and kind == "nifti" else found
    np.testing.assert_array_equal(found, np.rint(expected))


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_volume_in_memory_like_a_file(tmp_path, cncl, dtype, as_tensor):
    weights, network = cncl
    hu = volume(high=300).astype(dtype)
    hu[:2] = -2000
    given = torch.from_numpy(hu.copy()) if as_tensor else hu.copy()
    result = denoise(given, weights=weights, strength=0.5)
    assert type(result) is type(given)
    assert result.dtype == given.dtype
    assert np.array_equal(np.asarray(given), hu)  # not changed in place
    seen = np.where(hu == -2000, -1024, hu)  # padding is air to a network
    wanted = np.where(hu == -2000, hu, hu + 0.5 * (expected_of(network, seen)["denoised"] - hu))
    assert np.abs(np.asarray(result) - wanted).max() <= (0.51 if dtype == np.int16 else 0.01)
    assert np.array_equal(np.asarray(denoise(given, weights=weights, strength=0.0)), hu)


def test_denoise_of_a_path_is_that_of_the_command(tmp_path, cncl):
    source = nifti(tmp_path / "a.nii.gz", volume())
    paths = denoise(source, tmp_path / "one", weights=cncl[0], progress=False)
    assert paths == [tmp_path / "one" / "a_denoised.nii.gz"]
    np.testing.assert_array_equal(stored(paths[0]), denoise(volume(), weights=cncl[0]))
    with pytest.raises(ValueError, match="out=FOLDER"):
        denoise(source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 1.2}, "strength from 0 to 1"),
        ({"strength": float("nan")}, "strength from 0 to 1"),
        ({"save": ("gate",)}, "noise, content, disagreement"),
        ({"batch_size": 0}, "batch size"),
        ({"threads": 0}, "at least 1 thread"),
        ({"compression": "zip"}, "none, jpeg2000, rle"),
        ({"device": "abacus"}, "device of this machine"),
        ({"precision": "fp8"}, "precision to be one of fp32, bf16, auto"),
        ({"series": ("9",)}, "number, name or tag"),
    ],
)
def test_options_out_of_range(tmp_path, add, options, words):
    source = nifti(tmp_path / "in" / "a.nii", volume())
    with pytest.raises(ValueError, match=words):
        denoise_scans(source, tmp_path / "out", weights=add[0.0], progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_single_outputs_say_that_they_carry_no_branches(tmp_path, add):
    source = nifti(tmp_path / "a.nii", volume())
    with pytest.raises(ValueError, match="these have a single output"):
        denoise_scans(source, tmp_path / "out", weights=add[0.0], save=("noise",), progress=False)


def test_exported_weights_give_what_the_run_gives(tmp_path, cncl):
    """A scripted CNCL keeps its branches; both ways give the same files."""
    weights, network = cncl
    exported = scripted(network, tmp_path / "model.ts")
    source = nifti(tmp_path / "a.nii", volume())
    results = [
        denoise_scans(source, tmp_path / name, weights=path, save=("noise",), progress=False)[0]
        for name, path in (("run", weights), ("ts", exported))
    ]
    assert np.abs(stored(results[0]) - stored(results[1])).max() <= 1
    assert np.abs(stored(tmp_path / "run" / "a_noise.nii") - stored(tmp_path / "ts" / "a_noise.nii")).max() <= 1


def test_weights_that_cannot_be_used(tmp_path, cncl):
    (tmp_path / "a.ts").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="expected a TorchScript file|Expected a TorchScript file"):
        open_weights(tmp_path / "a.ts", CPU)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_weights(tmp_path / "none.pt", CPU)
    wrong = scripted(torch.nn.Conv2d(1, 2, 3), tmp_path / "two.ts")
    with pytest.raises(
        CheckpointError,
        match=r"maps \(B, slices, 64, 64\) to \(B, 1, 64, 64\), but it does not: .*interpreter\. Name CNCL weights",
    ):
        open_weights(wrong, CPU)


def test_weights_know_their_slices_and_checksum(tmp_path):
    import hashlib

    path, _ = tiny_cncl(tmp_path / "three", slices=3)
    weights = open_weights(path, CPU)
    assert (weights.slices, weights.has_branches) == (3, True)
    assert weights.checksum == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_network_that_returns_nan_writes_nothing(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image / 0.0 * 0.0

    weights = scripted(Broken(), tmp_path / "nan.ts")
    with pytest.raises(ScanError, match="NaN or infinity"):
        denoise_scans(nifti(tmp_path / "a.nii", volume()), tmp_path / "out", weights=weights, progress=False)
    assert not (tmp_path / "out").exists()


def test_values_that_are_no_hu_are_refused(tmp_path, add):
    with pytest.raises(ScanError, match="looks like stored values without"):
        denoise_scans(nifti(tmp_path / "a.nii", volume(low=0)), tmp_path / "out", weights=add[0.0], progress=False)
    assert not (tmp_path / "out").exists()


def test_preview_shows_the_middle_slice(tmp_path, add):
    from PIL import Image

    hu = np.full((40, 30, 5), 50, np.int16)
    hu[0, 0, 0] = -900
    hu[..., 2] = 240
    preview = tmp_path / "p" / "out.png"
    denoise_scans(nifti(tmp_path / "a.nii", hu), tmp_path / "out", weights=add[10.6], preview=preview, progress=False)
    picture = np.asarray(Image.open(preview))
    assert picture.shape[1] == 3 * 44
    body = picture[25:50]
    assert (body[:, 4:38] == round((240 - -150) / 400 * 255)).all()
    assert (body[:, 94:126] == round((100 - 10.6) / 200 * 255)).all()


def test_memory_does_not_grow_with_the_scan(tmp_path):
    """Of 400 slices no more than a few batches are held at any time."""
    from ct_cncl.pipeline.inference.streaming import denoise_slices
    from ct_cncl.transforms.series.slices import Slice

    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                alive -= 1

    class Many:
        count, problems, source = 400, (), None

        def read(self, number):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            hu = np.ndarray.__new__(Counted, (4, 4), np.float32)
            hu[...] = -number
            return Slice(hu, np.zeros((4, 4), bool), None)

        def neighbour(self, number, steps):
            return min(max(number + steps, 0), 399)

    class Nowhere:
        def __init__(self):
            self.seen = []

        def write(self, number, source, images):
            self.seen.append((number, float(images["denoised"][0, 0])))

    weights = open_weights(scripted(Add(0.0), tmp_path / "a.ts"), CPU)
    writer = Nowhere()
    denoise_slices(Many(), writer, weights, Settings(batch_size=4))
    assert writer.seen == [(k, -float(k)) for k in range(400)]
    assert most <= 40


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives(tmp_path, cncl):
    stack = volume((64, 48, 3), high=300).transpose(2, 0, 1)[:, None].astype(np.float32)
    there = open_weights(cncl[0], torch.device("cuda"))
    on_cpu, on_gpu = (apply_network(w, stack, Settings())["denoised"] for w in (open_weights(cncl[0], CPU), there))
    assert np.abs(on_cpu - on_gpu).max() < 1.0
    assert batch_for(there, (512, 512), Settings()) >= 8
