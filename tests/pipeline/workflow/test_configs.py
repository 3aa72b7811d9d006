"""The bundle as MONAI sees it: metadata, properties, network in and out, export, every working directory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from tiny_runs import ROOT, TINY, TINY_NETWORK, fire_arguments

from ct_cncl.pipeline.sharing.config_review import expressions
from ct_cncl.pipeline.sharing.zoo_rules import METADATA_SCHEMA
from ct_cncl.pipeline.workflow import locations
from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
from ct_cncl.pipeline.workflow.overlays import variant
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, load_config, run_workflow
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.series import ScanError

TRAIN, INFERENCE = str(config_file("train.json")), str(config_file("inference.json"))
META = str(config_file("metadata.json"))


def test_metadata_fits_the_schema(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(METADATA_SCHEMA.read_text())
    verify_metadata(meta_file=META, filepath=str(schema))


def test_metadata_without_a_required_field_is_refused(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(METADATA_SCHEMA.read_text())
    metadata = json.loads(Path(META).read_text())
    del metadata["task"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema))


def test_metadata_as_zoo_bundles_have_them_fit_the_schema_and_ours_have_all_their_fields(tmp_path):
    """Fields of the zoo's cxr_image_synthesis_latent_diffusion_model 1.0.2, which names the same schema as ours."""
    words = (
        "schema",
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "name",
        "task",
        "description",
        "copyright",
    )
    words += ("authors", "data_source", "data_type", "image_classes", "intended_use")
    tensor = {"type": "image", "format": "magnitude", "modality": "CXR", "num_channels": 1, "spatial_shape": [512, 512]}
    tensor |= {"dtype": "float32", "value_range": [0, 1], "is_patch_data": False, "channel_def": {"0": "X-ray"}}
    steps = {
        "type": "vector",
        "format": "magnitude",
        "num_channels": 1,
        "spatial_shape": [1],
        "value_range": [0, 1000],
        "dtype": "long",
    }
    zoo = dict.fromkeys(words, "words") | {
        "changelog": {"1.0.0": "first"},
        "required_packages_version": {"einops": "0.8.1"},
    }
    zoo["network_data_format"] = {"inputs": {"image": tensor, "timesteps": steps}, "outputs": {"pred": tensor}}
    (tmp_path / "schema.json").write_text(METADATA_SCHEMA.read_text())
    (tmp_path / "metadata.json").write_text(json.dumps(zoo))
    verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    ours = json.loads(Path(META).read_text())
    assert {name: type(value) for name, value in zoo.items()}.items() <= {
        name: type(value) for name, value in ours.items()
    }.items()
    image = ours["network_data_format"]["inputs"]["image"]
    assert {name: type(value) for name, value in tensor.items()} == {name: type(value) for name, value in image.items()}


def test_version_stands_in_one_place():
    metadata = json.loads(Path(META).read_text())
    assert metadata["version"] == __version__
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("config", [TRAIN, INFERENCE])
def test_network_in_and_out(config):
    verify_net_in_out(net_id="network_def", meta_file=META, config_file=config, device="cpu", any=37, **TINY_NETWORK)


def test_inference_is_that_of_cncl_fast_which_is_what_ships():
    """And of one slice: what models/model.pt holds loads into it."""
    inference, fast = load_config([config_file("inference.json")]), variant("cncl_fast").config()
    assert all(inference[key] == fast[key] for key in NETWORK_KEYS if key in fast)
    assert inference["context_slices"] == 1


def test_check_properties_of_training(tiny_dataset, tmp_path):
    overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")}
    workflow = ConfigWorkflow(config_file=TRAIN, workflow_type="train", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_check_properties_of_inference(tiny_dataset, tmp_path):
    overrides = TINY_NETWORK | {
        "dataset_dir": str(tiny_dataset / "test"),
        "output_dir": str(tmp_path),
        "checkpoint": None,
    }
    workflow = ConfigWorkflow(config_file=INFERENCE, workflow_type="infer", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_training_is_built_and_checked_without_data(tmp_path, monkeypatch):
    """As the zoo's bundles: no data set is made or read before the training runs, and then one that is missing is told."""
    monkeypatch.setattr(locations, "dataset_entries", lambda *_, **__: pytest.fail("data were asked for"))
    overrides = TINY | {"output_dir": str(tmp_path / "run")}
    workflow = ConfigWorkflow(config_file=TRAIN, workflow_type="train", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    monkeypatch.undo()
    missing = TINY | {"dataset_dir": str(tmp_path / "nowhere"), "output_dir": str(tmp_path / "other")}
    workflow = build_workflow([config_file("train.json")], run_id="training", overrides=missing)
    with pytest.raises(DataError, match="nowhere, but it has no datalist.json"):
        run_workflow(workflow)
    assert {path.name for path in (tmp_path / "other").rglob("*") if "tfevents" not in path.name} <= {"tensorboard"}


def test_overlays_of_training_are_built_and_checked_without_data(tiny_run, tmp_path, monkeypatch):
    """Several processes' config, and the one that evaluates a run: its checkpoint must be there, its data need not."""
    monkeypatch.setattr(locations, "dataset_entries", lambda *_, **__: pytest.fail("data were asked for"))
    for name, own in (
        ("multi_gpu_train.json", {"output_dir": str(tmp_path / "run")}),
        ("evaluate.json", {"output_dir": str(tiny_run), "evaluation_dir": str(tmp_path / "evaluation")}),
    ):
        files = [TRAIN, str(config_file(name))]
        workflow = ConfigWorkflow(config_file=files, workflow_type="train", **(TINY | own))
        workflow.initialize()
        assert workflow.check_properties() == []
    assert not (tmp_path / "evaluation").exists()


def test_inference_is_built_and_checked_without_scans(tmp_path):
    overrides = TINY_NETWORK | {"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path), "checkpoint": None}
    workflow = ConfigWorkflow(config_file=INFERENCE, workflow_type="infer", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    with pytest.raises(ScanError, match="none"):
        run_workflow(workflow)


def test_train_json_is_as_short_as_it_is_meant_to_be():
    """What every user sets on top, in the zoo's order; no program in an expression, no block twice."""
    config = json.loads(Path(TRAIN).read_text())
    assert len(config) <= 30
    zoo = ["imports", "bundle_root", "output_dir", "val_interval", "device", "network_def", "network", "optimizer"]
    zoo += ["train", "validate", "initialize", "run"]
    assert set(zoo) <= set(config)
    order = [
        key
        for key in config
        if key in ("network_def", "network", "optimizer", "train", "validate", "initialize", "run")
    ]
    assert order == zoo[5:]
    assert config["training"] == "%run"
    called = re.compile(r"\$[\w.@#]+\(.*\)", re.DOTALL)
    said = [text for text in expressions(config) if text.startswith("$") and not re.match(r"\$(from|import) ", text)]
    assert [text for text in said if not called.fullmatch(text)] == []
    assert not [text for text in said if re.search(r"\b(if|else|not|and|or|is|for|lambda)\b", text)]
    handlers = [*config["train"]["handlers"], *config["validate"]["handlers"]]
    assert all("_target_" in handler for handler in handlers)  # check_properties fails on a reference


def test_exported_torchscript_equals_the_network(tiny_run, tmp_path):
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(tiny_run / "best.pt"),
        meta_file=META,
        config_file=INFERENCE,
        key_in_ckpt="network_def",
        **TINY_NETWORK,
    )
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    parser.update(TINY_NETWORK)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(tiny_run / "best.pt", weights_only=True)["network_def"])
    image = torch.rand(1, 1, 50, 61, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(image), network(image), atol=1e-6)


def bundle_run(arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "monai.bundle", "run", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("where", [".", "bundles", "bundles/ct_cncl", "temporary"])
def test_training_runs_from_any_directory(where, tiny_dataset, tmp_path):
    cwd = tmp_path if where == "temporary" else ROOT / where
    config = os.path.relpath(config_file("train.json"), cwd)
    overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run"), "max_epochs": 1}
    done = bundle_run(["training", "--config_file", config, *fire_arguments(overrides)], cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,iteration,seconds,lr_generator")
    assert rows[1].startswith("1,4,")


@pytest.mark.slow
def test_training_without_data_prepares_phantoms_once(tmp_path, monkeypatch):
    bundle = locations
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    killed = tmp_path / "ct-cncl" / ".phantoms-v1.0123abcd.part"
    (killed / "training").mkdir(parents=True)
    monkeypatch.setattr(bundle, "PHANTOMS", {"training": 1, "validation": 1, "test": 1})
    monkeypatch.setattr(bundle, "PHANTOM_SLICES", 1)
    first = bundle.dataset_entries(bundle.default_dataset_dir(), "training")
    written = Path(first[0]["image"]).stat().st_mtime_ns
    again = bundle.dataset_entries(bundle.default_dataset_dir(), "training")
    assert first == again
    assert not killed.exists()  # of a preparation that was killed
    assert {path.name for path in killed.parent.iterdir()} == {"phantoms-v1"}  # the lock is gone, too
    assert Path(again[0]["image"]).stat().st_mtime_ns == written
    assert first[0]["provenance"]["truth"] == "noise-free"


def test_run_folder_holds_its_record(tiny_run):
    config = json.loads((tiny_run / "config.json").read_text())
    record = json.loads((tiny_run / "run.json").read_text())[0]
    assert config["network_def"]["content"]["width"] == TINY["network_def#content#width"]
    assert record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert {"best.pt", "last.pt", "metrics.csv", "tensorboard", "pictures"} <= {
        path.name for path in tiny_run.iterdir()
    }


def test_tensorboard_holds_every_loss_and_metric(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny_run / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"psnr", "psnr_input", "psnr_content", "psnr_denoised", "ssim", "rmse", "lr/generator"} <= set(
        tags["scalars"]
    )
    assert tags["images"]


def test_evaluate_overlay_repeats_the_validation(tiny_run, tiny_dataset):
    from ct_cncl.pipeline.training.run import evaluate_run

    metrics = evaluate_run(tiny_run, out=tiny_run / "again", assignments=["progress=false"])
    import csv

    rows = list(csv.DictReader((tiny_run / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["psnr"]))
    assert metrics["psnr"] == pytest.approx(float(best["psnr"]), abs=1e-4)
    assert metrics["psnr_input"] == pytest.approx(float(best["psnr_input"]), abs=1e-4)
