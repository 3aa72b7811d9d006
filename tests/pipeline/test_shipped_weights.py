"""The bundle's own weights are what is used where none are named."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_runs import TINY_NETWORK
from tiny_weights import tiny_cncl

from ct_cncl.pipeline import pack as pack_module
from ct_cncl.pipeline import weights as weights_module
from ct_cncl.pipeline.bundle import installed_bundle
from ct_cncl.pipeline.exports import write_state, write_torchscript
from ct_cncl.pipeline.handlers.checkpoints import CheckpointError
from ct_cncl.pipeline.inference import denoise
from ct_cncl.pipeline.pack import pack
from ct_cncl.pipeline.trained import trained_network
from ct_cncl.pipeline.weights import open_weights
from ct_cncl.pipeline.workflow import ConfigError
from ct_cncl.pipeline.zoo_rules import broken_rules

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
    for module in (weights_module, pack_module):
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
    overlay = own / "configs" / "variants" / "tiny.json"
    overlay.write_text(json.dumps(TINY_NETWORK | {"learning_rate": 0.25}))
    changed = metadata | {"weights": {"variant": str(overlay)}, "trained_on": {"noise_hu": [7, 8]}}
    (own / "configs" / "metadata.json").write_text(json.dumps(changed))
    import zipfile

    with zipfile.ZipFile(pack(tmp_path / "dist")) as archive:
        train = json.loads(archive.read("ct_cncl/configs/train.json"))
        packed = json.loads(archive.read("ct_cncl/configs/metadata.json"))
    assert train["learning_rate"] == 0.25
    assert packed["trained_on"] == {"noise_hu": [7, 8]}
    assert packed["weights"]["variant"] == "tiny"


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
