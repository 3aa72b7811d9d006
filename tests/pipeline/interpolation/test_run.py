"""A network between two checkpoints, and the curve on the way."""

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY, assignments
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.interpolation import alpha_sweep as texture_scan
from ct_cncl.pipeline.interpolation.alpha_sweep import SliceEvaluator
from ct_cncl.pipeline.interpolation.run import interpolate, interpolate_and_scan, interpolated, scan_alpha
from ct_cncl.pipeline.metrics import psnr
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.training.trained import trained_network
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.transforms.common.errors import DataError, OutputError
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.dataset.datalist import read_datalist
from ct_cncl.transforms.patches.slice_pairs import SlicePairs


@pytest.fixture(scope="module")
def second_run(tiny_dataset, tmp_path_factory):
    """Another run of the network of ``tiny_run``."""
    folder = tmp_path_factory.mktemp("runs") / "second"
    overrides = TINY | {"seed": 7, "max_epochs": 1}
    train_bundle(out=folder, data=tiny_dataset, assignments=assignments(overrides))
    return folder


@pytest.fixture(autouse=True)
def small_patches(monkeypatch):
    """Patches that fit into 48 x 40 pixels, and any tissue."""
    monkeypatch.setattr(texture_scan, "uniform_patches", lambda reference: [(4, 4), (4, 22), (22, 4), (22, 14)])
    monkeypatch.setattr(
        texture_scan, "patches_at", lambda image, corners: np.stack([image[x : x + 16, y : y + 16] for x, y in corners])
    )


def state(run):
    return torch.load(run / "best.pt", weights_only=True)["network_def"]


def test_equals_hand_computation_in_float64():
    generator = torch.Generator().manual_seed(0)
    f, g = ({"w": torch.randn(50, generator=generator), "n": torch.tensor(k)} for k in (3, 8))
    for alpha in (0.0, 0.3, 0.8, 1.0):
        between = interpolated(f, g, alpha=alpha)
        expected = alpha * f["w"].numpy().astype(np.float64) + (1 - alpha) * g["w"].numpy().astype(np.float64)
        np.testing.assert_array_equal(between["w"].numpy(), expected.astype(np.float32))
        assert between["n"].item() == (3 if alpha >= 0.5 else 8)
    assert torch.equal(interpolated(f, g, alpha=1.0)["w"], f["w"])
    assert torch.equal(interpolated(f, g, alpha=0.0)["w"], g["w"])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match="from 0 to 1"):
        interpolated({}, {}, alpha=alpha)


@pytest.mark.parametrize("other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}, {}])
def test_state_dicts_of_different_networks(other):
    with pytest.raises(CheckpointError, match="differs between them"):
        interpolated({"w": torch.zeros(2)}, other, alpha=0.5)


def test_the_folder_evaluates_and_denoises(tiny_run, second_run, tiny_dataset, tmp_path):
    out = tmp_path / "mixed"
    assert interpolate(tiny_run, second_run / "best.pt", alpha=0.25, out=out) == out / "best.pt"
    for name, value in state(out).items():
        torch.testing.assert_close(value, 0.25 * state(tiny_run)[name] + 0.75 * state(second_run)[name])
    metrics = evaluate_run(out, assignments=["progress=false"])
    ends = [
        evaluate_run(run, out=tmp_path / run.name, assignments=["progress=false"]) for run in (tiny_run, second_run)
    ]
    assert metrics["psnr_input"] == ends[0]["psnr_input"]
    assert metrics["psnr"] not in {end["psnr"] for end in ends}
    scan = next((tiny_dataset / "test").glob("*image*"))
    assert denoise_scans(scan, tmp_path / "denoised", weights=out / "best.pt", progress=False)
    record = json.loads((out / "interpolation.json").read_text())
    assert record["alpha"] == 0.25
    assert record["first"]["sha256"] != record["second"]["sha256"]


def test_both_ends_are_the_checkpoints_themselves(tiny_run, second_run, tmp_path):
    for alpha, run in ((1.0, tiny_run), (0.0, second_run)):
        interpolate(tiny_run, second_run, alpha=alpha, out=tmp_path / str(alpha))
        written = state(tmp_path / str(alpha))
        assert all(torch.equal(written[name], value) for name, value in state(run).items())


def test_nothing_is_overwritten_unasked(tiny_run, second_run, tmp_path):
    interpolate(tiny_run, second_run, alpha=0.25, out=tmp_path / "mixed")
    with pytest.raises(OutputError, match="--overwrite"):
        interpolate(tiny_run, second_run, alpha=0.5, out=tmp_path / "mixed")
    interpolate(tiny_run, second_run, alpha=0.5, out=tmp_path / "mixed", overwrite=True)
    assert json.loads((tmp_path / "mixed" / "interpolation.json").read_text())["alpha"] == 0.5


def test_a_run_is_never_overwritten(tiny_run, second_run, tmp_path):
    own = shutil.copytree(tiny_run, tmp_path / "own")
    with pytest.raises(OutputError, match="another folder"):
        interpolate(own, second_run, alpha=0.5, out=own, overwrite=True)


def test_different_networks_are_refused(tiny_run, tmp_path):
    other = shutil.copytree(tiny_run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["network_def"]["content"]["activation"] = "gelu"  # the same tensors, another function
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="define different ones"):
        interpolate(tiny_run, other, alpha=0.5, out=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_networks_that_only_begin_differently_are_one(tiny_run, second_run, tmp_path):
    other = shutil.copytree(second_run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["network_def"]["init_std"] = 0.7
    config.pop("context_slices")  # as in runs of before there were several
    (other / "config.json").write_text(json.dumps(config))
    interpolate(tiny_run, other, alpha=0.5, out=tmp_path / "mixed")
    (other / "config.json").write_text(json.dumps(config | {"context_slices": 3}))
    with pytest.raises(ConfigError, match="define different ones"):
        interpolate(tiny_run, other, alpha=0.5, out=tmp_path / "no")


def test_what_both_were_trained_on_is_kept_for_warnings(tiny_run, second_run, tmp_path):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in (tiny_run, second_run)]
    for run, noise in zip(runs, ([10.0, 20.0], [15.0, 40.0])):
        (run / "trained_on.json").write_text(json.dumps({"noise_hu": noise}))
    path = interpolate(*runs, alpha=0.5, out=tmp_path / "mixed")
    assert open_weights(path, torch.device("cpu")).trained_on == {"noise_hu": [10.0, 40.0]}


def test_weights_of_a_bundle(tiny_run, second_run, tiny_dataset, tmp_path):
    """As they are shipped: models/model.pt, the network in configs/inference.json."""
    bundle = tmp_path / "bundle"
    (bundle / "models").mkdir(parents=True)
    (bundle / "configs").mkdir()
    shutil.copy(tiny_run / "best.pt", bundle / "models" / "model.pt")
    shutil.copy(tiny_run / "config.json", bundle / "configs" / "inference.json")
    path = interpolate(bundle / "models" / "model.pt", second_run, alpha=0.25, out=tmp_path / "mixed")
    expected = interpolate(tiny_run, second_run, alpha=0.25, out=tmp_path / "expected")
    image = torch.rand(1, 1, 24, 20)
    networks = [open_weights(one, torch.device("cpu")).network for one in (path, expected)]
    with torch.inference_mode():
        assert torch.equal(*(network(image) for network in networks))
    with pytest.raises(ConfigError, match="Expected --data"):
        scan_alpha(bundle / "models" / "model.pt", second_run, alphas=[0.0, 1.0], out=tmp_path / "curve")


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": Path("/nonexistent")},
        {"split": "foo"},
        {"device": "foo"},
        {"max_slices": -3},
        {"alpha": 2.0},
        {"steps": 1},
    ],
)
def test_a_scan_that_cannot_be_made_leaves_nothing(tiny_run, second_run, tiny_dataset, tmp_path, wrong):
    options = {"alpha": 0.5, "steps": 2, "device": "cpu"} | wrong
    with pytest.raises((DataError, ConfigError, ValueError)):
        interpolate_and_scan(tiny_run, second_run, out=tmp_path / "mixed", **options)
    assert not (tmp_path / "mixed").exists()


def test_a_teacher_takes_as_many_slices_as_its_student(tmp_path):
    checkpoint, _ = tiny_cncl(tmp_path, slices=3)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"context_slices": 3}))
    assert trained_network(checkpoint, context_slices=3).training is False
    with pytest.raises(ConfigError, match="takes 1 slice as its student does, but .* takes 3"):
        trained_network(checkpoint, context_slices=1)


def test_a_replaced_interpolation_takes_its_curve_with_it(tiny_run, second_run, tmp_path):
    interpolate_and_scan(tiny_run, second_run, alpha=0.5, steps=2, out=tmp_path / "mixed", device="cpu")
    assert (tmp_path / "mixed" / "curve.csv").is_file()
    interpolate_and_scan(tiny_run, second_run, alpha=0.25, steps=0, out=tmp_path / "mixed", overwrite=True)
    assert not list((tmp_path / "mixed").glob("curve.*"))


def test_scan_equals_single_evaluations(tiny_run, second_run, tiny_dataset, tmp_path):
    points = scan_alpha(tiny_run, second_run, alphas=[0.0, 0.5, 1.0], out=tmp_path, device="cpu")
    assert [point.alpha for point in points] == [None, 0.0, 0.5, 1.0]
    figures = {None: evaluate_run(tiny_run, out=tmp_path / "e", assignments=["progress=false"])["psnr_input"]}
    for alpha in (0.0, 0.5, 1.0):
        interpolate(tiny_run, second_run, alpha=alpha, out=tmp_path / str(alpha))
        figures[alpha] = evaluate_run(tmp_path / str(alpha), assignments=["progress=false"])["psnr"]
    assert {point.alpha: point.psnr for point in points} == pytest.approx(figures, abs=1e-3)
    with (tmp_path / "curve.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["alpha"] for row in rows] == ["input", "0.0", "0.5", "1.0"]
    assert {row["data_range_hu"] for row in rows} == {"4096.0"}
    assert [float(row["nps_distance"]) for row in rows] == pytest.approx([p.nps_distance for p in points], abs=1e-5)
    root = ET.parse(tmp_path / "curve.svg").getroot()
    for title in ("Fidelity_against_texture", "Fidelity", "Texture"):
        line = root.find(f".//{{*}}g[@id='{title}']/{{*}}path").get("d").split()
        assert len([mark for mark in line if mark in "ML"]) == 3


def test_judge_of_the_reference_itself_and_of_nothing_left(tiny_dataset):
    """A network that knows the reference is at distance 0; one that removes all noise is at 1."""
    judge = SliceEvaluator(read_datalist(tiny_dataset)["validation"], max_slices=None, device=torch.device("cpu"))
    reference = [judge._hu(number, "label") for number in range(len(judge.pairs))]
    assert judge._point(0.0, reference).nps_distance == 0
    assert judge._point(0.0, [np.zeros_like(image) for image in reference]).nps_distance == pytest.approx(1)


def test_judge_leaves_padding_alone(tiny_dataset):
    class Zero(torch.nn.Module):
        def forward(self, image):
            return torch.zeros_like(image)

    judge = SliceEvaluator(read_datalist(tiny_dataset)["validation"], max_slices=1, device=torch.device("cpu"))
    pair = judge.pairs[0]
    pair["padding"][..., :20] = True

    class One(SlicePairs):
        def __init__(self):
            self.slices = judge.pairs.slices

        def __getitem__(self, number):
            return pair

    judge.pairs = One()
    expected = torch.where(pair["padding"], to_hu(pair["image"]), torch.tensor(-1024.0))
    from tqdm import tqdm

    with tqdm(disable=True) as bar:
        point = judge.network(Zero(), 0.0, bar)
    assert point.psnr == pytest.approx(
        psnr(expected[None], to_hu(pair["label"])[None], data_range=4096.0).item(), abs=1e-4
    )


def test_a_data_set_without_soft_tissue(tiny_run, second_run, monkeypatch, tmp_path):
    monkeypatch.setattr(texture_scan, "uniform_patches", lambda reference: [])
    with pytest.raises(DataError, match="soft tissue"):
        scan_alpha(tiny_run, second_run, alphas=[0.5], out=tmp_path)


def test_phantoms_have_no_texture_to_compare_with(tiny_dataset):
    data = [entry | {"provenance": {"truth": "noise-free"}} for entry in read_datalist(tiny_dataset)["validation"]]
    with pytest.raises(DataError, match="noise-free"):
        SliceEvaluator(data, max_slices=None, device=torch.device("cpu"))


@pytest.mark.parametrize("steps", [-1, 1])
def test_a_scan_has_two_ends(steps, tiny_run, second_run, tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        interpolate_and_scan(tiny_run, second_run, alpha=0.5, steps=steps, out=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_trained_network_is_frozen(tiny_run):
    network = trained_network(tiny_run / "best.pt")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, state(tiny_run)[name]) for name, value in network.state_dict().items())
    with pytest.raises(CheckpointError, match="teacher_checkpoint"):
        trained_network(None)
    with pytest.raises(CheckpointError, match="does not exist"):
        trained_network(tiny_run / "none.pt")
