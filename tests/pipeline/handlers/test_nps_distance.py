"""NPS distances of an evaluation: against the scan of an interpolation, which works them out another way, and by hand."""

import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLEvaluator
from ct_cncl.pipeline.handlers import nps_distance as noise_texture
from ct_cncl.pipeline.handlers.nps_distance import NPSDistance
from ct_cncl.pipeline.interpolation import alpha_sweep as texture_scan
from ct_cncl.pipeline.metrics import quality_metrics
from ct_cncl.pipeline.networks import CNCL, Branches, BranchOutputs, ConvFusion, UNet
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.patches.network_units import HUToNetworkd
from ct_cncl.transforms.patches.padding import PaddingMaskd
from ct_cncl.transforms.patches.slice_pairs import SlicePairs

CORNERS = [(4, 4), (4, 22), (22, 4), (22, 14)]


@pytest.fixture(autouse=True)
def small_patches(monkeypatch):
    """Patches that fit into 48 x 40 pixels, and any tissue."""

    def patches_at(image, corners):
        return np.stack([image[x : x + 16, y : y + 16] for x, y in corners])

    for module in (noise_texture, texture_scan):
        monkeypatch.setattr(module, "uniform_patches", lambda reference: CORNERS)
        monkeypatch.setattr(module, "patches_at", patches_at)


@pytest.fixture
def data(tiny_dataset):
    """Three volumes of two slices; one has another pixel size."""
    found = read_datalist(tiny_dataset)
    data = [*found["training"], *found["validation"]]
    return [data[0] | {"spacing_mm": [0.4, 0.9, 5.0]}, *data[1:]]


def evaluate(network, data, path):
    dataset = SlicePairs(data, Compose([PaddingMaskd("label"), HUToNetworkd(("image", "label"))]))
    engine = CNCLEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset),
        generator=network,
        metrics=quality_metrics(4096),
        val_handlers=[NPSDistance(path, dataset=dataset)],
    )
    engine.run()
    return json.loads(path.read_text())


def test_equals_the_scan_of_an_interpolation(data, tmp_path):
    torch.manual_seed(0)
    network = CNCL(content=UNet(width=4, depth=1), noise=UNet(width=4, depth=1), fusion=ConvFusion())
    written = evaluate(BranchOutputs(network).eval(), data, tmp_path / "texture.json")
    judge = texture_scan.SliceEvaluator(data, max_slices=None, device=torch.device("cpu"))
    from tqdm import tqdm

    with tqdm(disable=True) as bar:
        result = judge.network(network, 0.0, bar)
    assert written["nps_distance"] == pytest.approx(result.nps_distance, rel=1e-4)
    assert written["nps_distance_input"] == pytest.approx(judge.input().nps_distance, rel=1e-4)
    assert (written["volumes"], written["patches"]) == (3, 24)


def test_every_image_is_the_one_it_is_called(data, tmp_path):
    """Half of the noise leaves a quarter of its power; none of it, nothing."""

    class Known(nn.Module):
        def forward(self, image):
            return Branches(0.5 * image, image, torch.sqrt(torch.tensor(0.5)) * image)

    same = [entry | {"image": entry["label"]} for entry in data]
    written = evaluate(Known(), same, tmp_path / "texture.json")
    names = ("nps_distance", "nps_distance_content", "nps_distance_denoised", "nps_distance_input")
    assert [written[name] for name in names] == pytest.approx([0.5, 0.75, 1.0, 0.0], abs=1e-4)


def test_volumes_with_few_patches_and_phantoms_are_left_out(data, tmp_path, monkeypatch):
    network = BranchOutputs(nn.Conv2d(1, 1, 1))
    phantoms = [entry | {"provenance": {"truth": "noise-free"}} for entry in data]
    empty = {f"nps_distance{image}": None for image in ("", "_content", "_denoised", "_input")}
    empty |= {"spectra": "radial", "volumes": 0, "patches": 0}
    reason = {"reason": "the reference is a phantom without noise"}
    assert evaluate(network, phantoms, tmp_path / "p.json") == empty | reason
    alone = evaluate(network, data[:1], tmp_path / "a.json")
    assert "reason" not in alone
    assert evaluate(network, [data[0], *phantoms[1:]], tmp_path / "m.json") == alone
    monkeypatch.setattr(noise_texture, "uniform_patches", lambda reference: CORNERS[:1])  # two in two slices, of four
    few = evaluate(network, data, tmp_path / "f.json")
    assert few["volumes"] == 0
    assert few["reason"] == "no volume has 4 calm soft-tissue patches of 24 x 24 pixels"
