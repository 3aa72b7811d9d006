"""The bundle's own weights are what is used where none are named."""

import hashlib
import io
import json
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_runs import SHARED, TINY_NETWORK
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.common.checkpoint_file import network_state
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.inference.api import denoise
from ct_cncl.pipeline.metrics import nps_distance, tissue_masks, uniform_patches
from ct_cncl.pipeline.metrics.nps_distance import patches_at
from ct_cncl.pipeline.sharing import pack as pack_module
from ct_cncl.pipeline.sharing import verify as verify_module
from ct_cncl.pipeline.sharing.export import write_state, write_torchscript
from ct_cncl.pipeline.sharing.pack import pack
from ct_cncl.pipeline.sharing.verify import OK, verify
from ct_cncl.pipeline.sharing.zoo_rules import broken_rules
from ct_cncl.pipeline.training.trained import trained_network
from ct_cncl.pipeline.weights import load as weights_module
from ct_cncl.pipeline.weights.domain import outside
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.run import config_file, merged_config, overlay_file
from ct_cncl.pipeline.workflow.run_values import value_at
from ct_cncl.transforms.anatomy.regions import noise_power_spectrum

CPU = torch.device("cpu")


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """An installed bundle that ships tiny weights, and their network."""
    path, network = tiny_cncl(tmp_path / "run")
    own = tmp_path / "installed"
    shutil.copytree(installed_bundle(), own, ignore=shutil.ignore_patterns("models"))
    inference = own / "configs" / "inference.json"
    inference.write_text(json.dumps(json.loads(inference.read_text()) | TINY_NETWORK))
    write_state(path, own / "models" / "model.pt")
    for module in (weights_module, pack_module, verify_module):
        monkeypatch.setattr(module, "installed_bundle", lambda: own)
    return own, network


def test_denoise_takes_them(shipping):
    _, network = shipping
    hu = np.random.default_rng(0).normal(40, 25, (40, 32, 2)).astype(np.float32)
    with torch.inference_mode():
        units = (torch.from_numpy(hu).permute(2, 0, 1)[:, None] + 1024) / 4096
        expected = network(units)[:, 0].permute(1, 2, 0).numpy() * 4096 - 1024
    assert np.abs(expected - hu).max() > 1
    assert np.abs(denoise(hu, device="cpu") - expected).max() < 0.01


def test_torchscript_where_there_is_nothing_else(shipping):
    own, network = shipping
    (own / "models" / "model.pt").unlink()
    write_torchscript(network, own / "models" / "model.ts", metadata={"trained_on": {"noise_hu": [1, 2]}})
    weights = open_weights(None, CPU)
    assert isinstance(weights.network, torch.jit.ScriptModule)
    assert weights.trained_on == {"noise_hu": [1, 2]}


def test_none_at_all_is_told(shipping):
    own, _ = shipping
    (own / "models" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="ships none.*ct-cncl train"):
        open_weights(None, CPU)


def test_what_they_were_trained_on_comes_from_the_metadata_or_from_beside_them(shipping):
    own, _ = shipping
    metadata = json.loads((own / "configs" / "metadata.json").read_text())
    (own / "configs" / "metadata.json").write_text(json.dumps(metadata | {"trained_on": {"noise_hu": [3, 4]}}))
    assert open_weights(None, CPU).trained_on == {"noise_hu": [3, 4]}
    (own / "models" / "trained_on.json").write_text(json.dumps({"noise_hu": [5, 6]}))
    assert open_weights(None, CPU).trained_on == {"noise_hu": [5, 6]}


def test_they_are_a_teacher_and_can_be_named_as_a_file(shipping):
    """A bundle says in inference.json what network its weights are of; no config.json lies beside them."""
    own, network = shipping
    image = torch.rand(1, 1, 20, 20)
    with torch.inference_mode():
        assert torch.equal(trained_network(own / "models" / "model.pt")(image), network(image))


def test_a_strangers_inference_config_builds_networks_only(shipping, tmp_path):
    own, _ = shipping
    inference = own / "configs" / "inference.json"
    inference.write_text(json.dumps({"network_def": {"_target_": "os.system", "command": f"touch {tmp_path}/canary"}}))
    with pytest.raises(ConfigError, match="which was not run"):
        open_weights(own / "models" / "model.pt", CPU)
    assert not (tmp_path / "canary").exists()


def test_pack_takes_them_with_the_overlay_that_the_metadata_name(shipping, tmp_path):
    own, _ = shipping
    metadata = json.loads((own / "configs" / "metadata.json").read_text())
    overlay = own / "configs" / "research" / "tiny.json"
    overlay.write_text(json.dumps(TINY_NETWORK | {"learning_rate": 0.25, "validate#dataset#max_slices": 7}))
    changed = metadata | {"weights": {"variant": str(overlay)}, "trained_on": {"noise_hu": [7, 8]}}
    (own / "configs" / "metadata.json").write_text(json.dumps(changed))
    with zipfile.ZipFile(pack(tmp_path / "dist")) as archive:
        train = json.loads(archive.read("ct_cncl/configs/train.json"))
        packed = json.loads(archive.read("ct_cncl/configs/metadata.json"))
    assert (train["learning_rate"], train["validate"]["dataset"]["max_slices"]) == (1e-4, 7)  # fine_tune comes last
    assert packed["trained_on"] == {"noise_hu": [7, 8]}
    assert packed["weights"]["variant"] == "tiny"


def ramp_noise(rng, side):
    """Noise (side, side) with the spectrum that filtered back projection gives, standard deviation 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    shaped = np.fft.ifft2(
        np.fft.fft2(rng.normal(size=(side, side))) * np.sqrt(frequency) * np.cos(np.pi * frequency.clip(0, 0.5))
    )
    return shaped.real / shaped.real.std()


needs_weights = pytest.mark.skipif(
    not (installed_bundle() / "models" / "model.pt").is_file(), reason="this checkout ships no weights"
)
VAL = SHARED / "val"


@needs_weights
@pytest.mark.slow
def test_the_release_packs_itself_and_stands_every_check(tmp_path):
    path = pack(tmp_path)
    found = verify(path)
    assert {check.state for check in found.checks} == {OK}, found.checks
    assert found.review.doubts == []
    with zipfile.ZipFile(path) as archive:
        train = json.loads(archive.read("ct_cncl/configs/train.json"))
        metadata = json.loads(archive.read("ct_cncl/configs/metadata.json"))
    own = json.loads(overlay_file("cncl_fast").read_text())
    assert train["network_def"] == own["network_def"]
    assert metadata["weights"]["variant"] == "cncl_fast"
    with zipfile.ZipFile(path) as archive, archive.open("ct_cncl/models/model.pt") as packed:
        content = packed.read()
    assert metadata["weights"]["sha256"] == hashlib.sha256(content).hexdigest()
    ours = torch.load(installed_bundle() / "models" / "model.pt", weights_only=True)
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    assert all(torch.equal(theirs[name], value) for name, value in network_state(ours).items())


@needs_weights
def test_whoever_trains_the_release_on_does_so_with_small_steps_and_no_adversary():
    """What a bundle's train.json does to finished weights: at a rate for beginners, with a GAN, it would spoil them."""
    train = merged_config([config_file("train.json"), overlay_file("fine_tune")])
    recipe = merged_config([config_file("train.json"), overlay_file("quarter_dose")])
    assert train["learning_rate"] == 1e-4 < recipe["learning_rate"]
    assert train["discriminator"] is None
    assert (train["patches"]["dose_range"], train["patches"]["nested_dose_range"]) == (
        None,
        None,
    )  # any data set will do
    same = (
        "network_def",
        "batch_size",
        "patches#size",
        "patches#lesions_most",
        "patches#lesion_weight",
        "pixel_loss",
        "train#trainer#clip_grad_norm",
        "ema",
        "optimizer",
    )
    for key in same:
        assert value_at(train, key) == value_at(recipe, key), key
    assert train["lr_scheduler"]["T_max"] == "@max_epochs"


@needs_weights
def test_the_pixel_stage_is_beside_them():
    """It opens like the shipped weights, with what they were trained on, and leaves less of a scan's noise."""
    folder = installed_bundle() / "models"
    pixel, shipped = open_weights(folder / "pixel.pt", CPU), open_weights(None, CPU)
    assert pixel.checksum != shipped.checksum
    assert pixel.trained_on == shipped.trained_on != {}
    rng = np.random.default_rng(0)
    hu = (40 + 30 * ramp_noise(rng, 128)).astype(np.float32)[..., None]
    left = [float(denoise(hu, weights=folder / name, device="cpu").std()) for name in ("pixel.pt", "model.pt")]
    assert 0.2 * hu.std() < left[0] < left[1] < 0.6 * hu.std()


@needs_weights
def test_other_body_parts_are_warned_of():
    known = open_weights(None, CPU).trained_on
    (warning,) = outside({"body_part": ["HEAD"]}, known)
    assert "HEAD is not in the training data" in warning
    assert outside({"body_part": ["CHEST"]}, known) == []


@needs_weights
@pytest.mark.slow
@pytest.mark.skipif(not VAL.is_dir(), reason="no real CT beside this checkout (../shared/ct)")
@pytest.mark.parametrize(("name", "distance"), [("model.pt", 0.6), ("pixel.pt", 0.8)])
def test_real_scans_at_a_quarter_of_their_dose(name, distance, tmp_path, command):
    """The model card's figures by scan, with some room: two scans of patients that training did not see."""
    weights = installed_bundle() / "models" / name
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("nysbu_A072894_19010103.nii.gz", "nysbu_A098752_19010127.nii.gz"):
        shutil.copyfile(VAL / name, scans / name)
    code, _, errors = command("simulate", scans, "--dose", 0.25, "--seed", 99, "--out", tmp_path / "low")
    assert code == 0, errors
    for low in sorted((tmp_path / "low").glob("*.nii.gz")):
        y, reference = (
            np.asarray(nib.load(path).dataobj, dtype=np.float32)[..., 0]
            for path in (low, scans / f"{low.name.split('_dose')[0]}.nii.gz")
        )
        result = denoise(y[..., None], weights=weights, device="cpu")[..., 0]
        error = [float(np.sqrt(np.mean((image - reference) ** 2))) for image in (y, result)]
        assert 20 * np.log10(error[0] / error[1]) > 2.5
        masks = tissue_masks(reference)
        bias = {name: float((result - reference)[mask].mean()) for name, mask in masks.items() if mask.sum() > 500}
        assert {"lung", "fat", "soft tissue"} <= set(bias)
        assert max(abs(bias[name]) for name in ("lung", "fat", "soft tissue")) < 0.5
        spectra = [
            noise_power_spectrum(patches_at(image, uniform_patches(reference)), (1.0, 1.0))
            for image in (y, result, reference)
        ]
        assert nps_distance(spectra[1], spectra[2]) < distance < 2 < nps_distance(spectra[0], spectra[2])


def test_the_repositorys_bundle_keeps_the_zoos_rules():
    expected = [] if (installed_bundle() / "models" / "model.pt").is_file() else ["models/model.pt is missing."]
    assert broken_rules(installed_bundle()) == expected


def test_shipped_weights_load_and_change_a_scan():
    """Of this checkout, where it ships any."""
    if not (installed_bundle() / "models" / "model.pt").is_file():
        pytest.skip("this checkout ships no weights")
    weights = open_weights(None, CPU)
    image = (torch.full((1, 1, 64, 64), 40.0) + 20 * torch.randn(1, 1, 64, 64) + 1024) / 4096
    with torch.inference_mode():
        result = weights.network(image)
    assert float(result.std()) < 0.8 * float(image.std())
