"""An identity network through inference: what comes out is what went in."""

import nibabel as nib
import numpy as np
import pytest
import torch

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.inference.api import denoise, denoise_scans
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow

ANGLE = np.deg2rad(17)
OBLIQUE = np.array(
    [
        [0.7 * np.cos(ANGLE), -0.7 * np.sin(ANGLE), 0.0, -91.5],
        [0.7 * np.sin(ANGLE), 0.7 * np.cos(ANGLE), 0.3, 12.25],
        [0.0, 0.1, 2.5, -300.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
AFFINES = {
    "plain": np.diag([-0.7, -0.7, 2.5, 1.0]),
    "flipped": np.diag([0.7, -0.7, -2.5, 1.0]),
    "oblique": OBLIQUE,
    "sagittal_first": np.array([[0, 0.7, 0, 5], [0, 0, -0.7, 6], [2.5, 0, 0, 7], [0, 0, 0, 1.0]]),
}


def identity_run(source, out, **overrides):
    overrides = {
        "dataset_dir": str(source),
        "output_dir": str(out),
        "network_def": {"_target_": "torch.nn.Identity"},
        "checkpoint": None,
        "device": "$torch.device('cpu')",
        "progress": False,
    } | overrides
    run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))


def write(path, shape, affine, dtype=np.int16, high=3071):
    hu = np.random.default_rng(0).integers(-1024, high, shape).astype(dtype)
    hu.flat[0] = -1024
    nib.save(nib.Nifti1Image(hu, affine), path)
    return hu


def assert_equal_files(source, result):
    a, b = nib.load(source), nib.load(result)
    assert np.array_equal(np.asanyarray(a.dataobj), np.asanyarray(b.dataobj))
    assert np.array_equal(a.affine, b.affine)
    assert a.shape == b.shape
    assert a.get_data_dtype() == b.get_data_dtype()


@pytest.mark.parametrize("name", AFFINES)
def test_identity_keeps_hu_affine_shape_and_dtype(name, tmp_path):
    write(tmp_path / "scan.nii.gz", (21, 34, 5), AFFINES[name])
    identity_run(tmp_path / "scan.nii.gz", tmp_path / "out")
    assert_equal_files(tmp_path / "scan.nii.gz", tmp_path / "out" / "scan_denoised.nii.gz")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_identity_above_3071_hu(dtype, tmp_path):
    hu = write(tmp_path / "scan.nii", (16, 17, 3), AFFINES["plain"], dtype, high=20000)
    assert hu.max() > 3071
    identity_run(tmp_path / "scan.nii", tmp_path / "out")
    assert_equal_files(tmp_path / "scan.nii", tmp_path / "out" / "scan_denoised.nii")


@pytest.mark.parametrize("slices", [1, 300])
def test_identity_for_one_and_for_300_slices(slices, tmp_path):
    write(tmp_path / "scan.nii", (40, 32, slices), AFFINES["flipped"])
    identity_run(tmp_path / "scan.nii", tmp_path / "out", batch_size=7)
    assert_equal_files(tmp_path / "scan.nii", tmp_path / "out" / "scan_denoised.nii")


def test_every_scan_of_a_folder_is_written(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / "a.nii.gz", (16, 16, 2), AFFINES["plain"])
    write(tmp_path / "in" / "deep" / "b.nii", (18, 16, 3), AFFINES["oblique"])
    identity_run(tmp_path / "in", tmp_path / "out")
    assert_equal_files(tmp_path / "in" / "a.nii.gz", tmp_path / "out" / "a_denoised.nii.gz")
    assert_equal_files(tmp_path / "in" / "deep" / "b.nii", tmp_path / "out" / "deep" / "b_denoised.nii")


def test_slices_reach_the_network_as_they_lie(tmp_path):
    """A network that adds the column number: each stored voxel must be changed by its position toward patient left."""
    hu = np.full((12, 10, 4), 100, np.int16)
    hu[0, 0, 0] = -1000
    nib.save(nib.Nifti1Image(hu, np.diag([0.7, 0.7, 2.5, 1.0])), tmp_path / "scan.nii")  # axis 0 runs to the right

    identity_run(
        tmp_path / "scan.nii",
        tmp_path / "out",
        network_def={"_target_": f"{AddColumn.__module__}.AddColumn"},
    )
    result = np.asanyarray(nib.load(tmp_path / "out" / "scan_denoised.nii").dataobj)
    assert np.array_equal(result - hu, np.broadcast_to(np.arange(12)[::-1, None, None], hu.shape))


class AddColumn(torch.nn.Module):
    """Adds 1 HU a pixel along the first axis of a slice."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.arange(image.shape[-2]).view(-1, 1) / 4096


def test_denoise_uses_the_run_and_equals_the_network(tiny_run, tmp_path):
    from monai.bundle import ConfigParser

    from ct_cncl.pipeline.workflow.definition import network_config
    from ct_cncl.transforms.common.hu import to_hu, to_network

    hu = write(tmp_path / "scan.nii", (37, 45, 3), AFFINES["plain"], np.float32, high=300)
    paths = denoise_scans(tmp_path / "scan.nii", tmp_path / "out", weights=tiny_run / "best.pt", progress=False)
    assert paths == [tmp_path / "out" / "scan_denoised.nii"]
    parser = ConfigParser(network_config(tiny_run / "best.pt"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(tiny_run / "best.pt", weights_only=True)["network_def"])
    with torch.no_grad():
        slices = torch.from_numpy(hu).permute(2, 0, 1)[:, None]
        expected = to_hu(network(to_network(slices)))[:, 0].permute(1, 2, 0).numpy()
    written = np.asanyarray(nib.load(paths[0]).dataobj)
    assert np.abs(written - expected).max() < 0.01
    assert np.abs(written - hu).max() > 1
    assert np.abs(denoise(hu, weights=str(tiny_run / "best.pt"), device="cpu") - expected).max() < 0.01
    with pytest.raises(CheckpointError, match="nowhere.pt does not exist"):
        denoise(hu, weights=str(tmp_path / "nowhere.pt"), device="cpu")


@pytest.mark.shared
def test_real_dicom_keeps_its_hu_through_inference(tmp_path):
    from tiny_runs import ROOT

    from ct_cncl.transforms.series import read_scan

    source = ROOT.parent / "shared" / "ct" / "dicom" / "kits00072"
    if not source.is_dir():
        pytest.skip("no real CT beside this checkout (../shared/ct)")
    identity_run(source, tmp_path / "out")
    result = next((tmp_path / "out").glob("*.nii.gz"))
    scan = read_scan(source)
    assert np.array_equal(np.asanyarray(nib.load(result).dataobj), scan.hu)
    assert np.allclose(nib.load(result).affine, scan.affine, atol=1e-4)
