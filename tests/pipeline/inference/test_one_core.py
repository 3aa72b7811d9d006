"""One scan through the command, a volume in memory, a path from Python and the bundle's inference.json: the same values to the bit."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from series_files import ct_slice, nifti, save
from tiny_weights import Steps, scripted
from typer.testing import CliRunner

from ct_cncl.pipeline.cli.app import app
from ct_cncl.pipeline.inference.api import denoise
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow

AS_DISPLAYED = np.diag([-0.7, -0.7, 2.5, 1.0])
SHAPE = (16, 14, 3)
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return scripted(Steps(), tmp_path_factory.mktemp("weights") / "steps.ts")


def bundle(source, out, strength):
    overrides = {
        "dataset_dir": str(source),
        "output_dir": str(out),
        "network_def": {"_target_": "tiny_weights.Steps"},
        "checkpoint": None,
        "device": "$torch.device('cpu')",
        "progress": False,
        "strength": strength,
    }
    run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))


def command(source, out, weights, strength):
    arguments = ["denoise", source, "--out", out, "--weights", weights, "--strength", strength, "--device", "cpu"]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def stored(path):
    return np.asanyarray(nib.load(path).dataobj.get_unscaled())


def values(low, high):
    """Whole numbers of both ends and between, every one in every column."""
    rng = np.random.default_rng(3)
    drawn = rng.integers(low, min(high, low + 3000), SHAPE)
    drawn[:, :2], drawn[:, 2:4] = low, min(high, low + 255)
    return drawn


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_nifti_four_ways(tmp_path, weights, dtype, strength):
    dtype = np.dtype(dtype)
    inter = -1024.0 if dtype.kind == "u" else 0.0
    raw = values(0 if dtype.kind == "u" else max(-1024, np.iinfo(dtype).min), np.iinfo(dtype).max)
    path = nifti(tmp_path / "scan.nii.gz", raw.astype(dtype), AS_DISPLAYED, 1, inter)
    options = {"weights": weights, "strength": strength, "device": "cpu"}
    command(path, tmp_path / "command", weights, strength)
    (from_python,) = denoise(path, tmp_path / "python", progress=False, **options)
    bundle(path, tmp_path / "bundle", strength)
    expected = stored(tmp_path / "command" / "scan_denoised.nii.gz")
    np.testing.assert_array_equal(stored(from_python), expected)
    np.testing.assert_array_equal(stored(tmp_path / "bundle" / "scan_denoised.nii.gz"), expected)
    in_memory = denoise((raw + int(inter)).astype(np.int64), **options) - int(inter)
    ends = np.iinfo(dtype)
    np.testing.assert_array_equal(in_memory.clip(int(ends.min), int(ends.max)), expected)
    change = (strength * (np.arange(SHAPE[0]) * 0.5 - 4))[:, None, None]
    at_most = 0.5 + 1e-3  # rounding, and float32 HU
    assert np.abs(expected.astype(float) - (raw + change).clip(float(ends.min), float(ends.max))).max() <= at_most
    if inter == 0:
        np.testing.assert_array_equal(denoise(raw.astype(dtype), **options), expected)


@pytest.mark.parametrize("slope", [0.5, 0.1, 2.0])
def test_scaled_nifti_two_ways(tmp_path, weights, slope):
    """Stored values that float32 HU do not give back: the change is made in them, whoever writes."""
    raw = values(0, 40000).astype(np.int32) + (1 << 24) + 1
    path = nifti(tmp_path / "scan.nii", raw, AS_DISPLAYED, slope, -1000.0 - slope * (1 << 24))
    command(path, tmp_path / "command", weights, 1.0)
    bundle(path, tmp_path / "bundle", 1.0)
    results = [stored(tmp_path / way / "scan_denoised.nii") for way in ("command", "bundle")]
    np.testing.assert_array_equal(results[0], results[1])
    bundle(path, tmp_path / "untouched", 0.0)
    np.testing.assert_array_equal(stored(tmp_path / "untouched" / "scan_denoised.nii"), raw)


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (8, 16), (12, 16), (16, 16), (32, 32)])
@pytest.mark.parametrize("signed", [False, True])
def test_dicom_four_ways(tmp_path, weights, bits, allocated, signed, strength):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    intercept = -1024 - max(low, -4096)
    raw = values(max(low, -4096), high)
    raw[0, 4, 0] = max(low, -4096)
    for k in range(SHAPE[2]):
        word = f"<{'i' if signed else 'u'}{allocated // 8}"
        ds = ct_slice(
            raw[..., k].T,
            (0, 0, 2.5 * k),
            signed=signed,
            intercept=str(intercept),
            BitsAllocated=allocated,
            BitsStored=bits,
            HighBit=bits - 1,
            StudyInstanceUID="1.2.3",
        )
        ds.add_new(
            0x00280120, "SS" if signed else "US", int(raw[5, 5, 0]) & 0x7F
        )  # stated, where no rule would find it
        ds.PixelData = raw[..., k].T.astype(word).tobytes()
        save(ds, tmp_path / "in" / f"{k}.dcm")
    options = {"weights": weights, "strength": strength, "device": "cpu"}
    command(tmp_path / "in", tmp_path / "command", weights, strength)
    (from_python,) = denoise(tmp_path / "in", tmp_path / "python", progress=False, **options)
    bundle(tmp_path / "in", tmp_path / "bundle", strength)

    def pixels(folder):
        slices = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda ds: ds.ImagePositionPatient[2])
        return np.stack([ds.pixel_array.T.astype(np.int64) for ds in slices], axis=-1)

    expected = pixels(tmp_path / "command" / "in_series002_denoised")
    np.testing.assert_array_equal(pixels(from_python), expected)
    (file,) = (tmp_path / "bundle").glob("*.nii.gz")
    as_nifti = stored(file).astype(np.int64) - intercept
    np.testing.assert_array_equal(as_nifti.clip(low, high), expected)  # NIfTI of HU is not clipped to the DICOM's bits
    padding = int(raw[5, 5, 0]) & 0x7F
    in_memory = denoise((raw + intercept).astype(np.int64), **options) - intercept
    in_memory = np.where(raw == padding, raw, in_memory)  # a volume in memory states no padding
    np.testing.assert_array_equal(in_memory.clip(low, high), expected)
