"""Three neighbouring slices by one overlay: training, validation, evaluation, interpolation and whole volumes agree."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.ablation.model_table import model_table
from ct_cncl.pipeline.inference.api import denoise, denoise_scans
from ct_cncl.pipeline.interpolation import alpha_sweep as texture_scan
from ct_cncl.pipeline.interpolation.run import scan_alpha
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.transforms.dataset.datalist import read_datalist


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "context"
    train_bundle(out=folder, data=tiny_dataset, overlays=["ema"], assignments=assignments(TINY | {"context_slices": 3}))
    return folder


@pytest.fixture(scope="module")
def network(run):
    built = ConfigParser(network_config(run / "best.pt")).get_parsed_content("network_def").eval()
    built.load_state_dict(torch.load(run / "best.pt", weights_only=True)["network_def"])
    return built


def by_hand(network, volume, around):
    """Result (x, y) in HU of the slices that ``around`` names."""
    stack = np.moveaxis(np.asarray(volume, dtype=np.float32)[..., around], -1, 0)
    with torch.no_grad():
        return network(torch.from_numpy((stack + 1024) / 4096)[None])[0, 0].numpy() * 4096 - 1024


def test_evaluation_sees_the_neighbours(run, network, tiny_dataset):
    """Slices of the validation volume have two and the end again: (0, 0, 1) and (0, 1, 1)."""
    (entry,) = read_datalist(tiny_dataset)["validation"]
    image, label = (np.asarray(nib.load(entry[key]).dataobj, dtype=np.float64) for key in ("image", "label"))
    errors = [by_hand(network, image, around) - label[..., z] for z, around in enumerate([[0, 0, 1], [0, 1, 1]])]
    expected = np.mean([20 * np.log10(4096 / np.sqrt(np.mean(error**2))) for error in errors])
    assert evaluate_run(run, assignments=["progress=false"])["psnr"] == pytest.approx(expected, abs=1e-3)


def test_volumes_are_denoised_with_the_neighbours(run, network, tmp_path):
    hu = np.random.default_rng(0).integers(-900, 900, (21, 30, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    (written,) = denoise_scans(tmp_path / "scan.nii.gz", tmp_path / "out", weights=run / "best.pt", progress=False)
    result = np.asanyarray(nib.load(written).dataobj)
    in_memory = denoise(hu, weights=run / "best.pt")
    for z, around in enumerate([[0, 0, 1], [0, 1, 2], [1, 2, 2]]):
        expected = by_hand(network, hu, around)
        np.testing.assert_allclose(result[..., z], expected, atol=0.51)
        np.testing.assert_array_equal(in_memory[..., z], result[..., z])


def test_an_interpolation_is_judged_with_the_neighbours(run, tmp_path, monkeypatch):
    monkeypatch.setattr(texture_scan, "uniform_patches", lambda reference: [(4, 4), (4, 22), (22, 4), (22, 14)])
    monkeypatch.setattr(
        texture_scan, "patches_at", lambda image, corners: np.stack([image[x : x + 16, y : y + 16] for x, y in corners])
    )
    low_dose, point = scan_alpha(run, run, alphas=[1.0], out=tmp_path, device="cpu")
    figures = evaluate_run(run, out=tmp_path / "evaluation", assignments=["progress=false"])
    assert (low_dose.psnr, point.psnr) == pytest.approx((figures["psnr_input"], figures["psnr"]), abs=1e-3)


def test_the_table_of_models_counts_all_slices():
    plain, context = model_table(["width16", "width16+context_slices=3"], size=64, timing=False)[1:]
    assert (
        context.parameters - plain.parameters == 2 * 2 * 16 * 9
    )  # two more slices into each branch's first convolution
    assert context.gmac > plain.gmac
