import configparser
import json
import logging
from pathlib import Path

import pytest
from monai.apps.utils import DEFAULT_FMT

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.config_checks import check_keys, check_overlay, check_values
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.pipeline.workflow.run import (
    build_workflow,
    config_file,
    merged_config,
    overlay_file,
    parse_overrides,
    root_cause,
)

BASE = {
    "batch_size": 2,
    "content_predictor": {"_target_": "ct_cncl.pipeline.networks.UNet", "depth": 4},
    "list": [{"a": 1}],
}


def test_log_lines_look_as_monai_s_own():
    """So that those of `monai.bundle run` and of torchrun are all of one format, MONAI's own among them."""
    settings = configparser.RawConfigParser()
    settings.read(config_file("logging.conf"))
    assert settings["formatter_plain"]["format"] == DEFAULT_FMT
    assert "datefmt" not in settings["formatter_plain"]


def test_parse_overrides():
    got = parse_overrides(["a=1", "b=1e-3", "c=[1, 2]", "d=None", "e=null", "f=x=y", "g=(1, 2)", "h=true", "i#j="])
    expected = {"a": 1, "b": 1e-3, "c": [1, 2], "d": None, "e": None, "f": "x=y", "g": (1, 2), "h": True, "i#j": ""}
    assert got == expected
    for bad in ("a", "=1"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            parse_overrides([bad])


def test_check_keys():
    check_keys(BASE, ["batch_size", "content_predictor#depth", "content_predictor#width", "list#0#a"])
    for key, hint in (
        ("batch_sise", "did you mean batch_size"),
        ("content_predictor#widht", "width"),
        ("list#1", r"list\.1"),
    ):
        with pytest.raises(ConfigError, match=hint):
            check_keys(BASE, [key])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("batch_size", "abc", "a number for batch_size, for example 2, but got 'abc'"),
        ("content_predictor#depth", "deep", "a number for content_predictor#depth"),
        ("list", "conv2_2", "a list for list"),
    ],
)
def test_words_where_numbers_or_lists_belong(key, value, said):
    with pytest.raises(ConfigError, match=said):
        check_values(BASE, {key: value})
    check_values(BASE, {key: "$1 + 1", "content_predictor#width": "wide"})


def test_overlay_file(tmp_path):
    assert overlay_file("narrow").is_file()
    (tmp_path / "own.json").write_text("{}")
    assert overlay_file(str(tmp_path / "own.json")) == tmp_path / "own.json"
    with pytest.raises(ConfigError, match="did you mean narrow"):
        overlay_file("narow")


def test_check_overlay():
    check_overlay(BASE, {"batch_size": 3, "mine": 1, "list": "@mine"}, Path("o.json"))
    with pytest.raises(ConfigError, match=r"o\.json.*batch_size"):
        check_overlay(BASE, {"batchsize": 3}, Path("o.json"))


def test_an_overlay_is_checked_against_those_before_it(tmp_path):
    """`encoder_blocks` is an argument of what cncl_fast puts in the place of the paper's U-Net."""
    own = tmp_path / "depth2.json"
    own.write_text('{"network_def#content#encoder_blocks": [1, 1]}')
    merged = merged_config([config_file("train.json"), overlay_file("cncl_fast"), own])
    assert merged["network_def"]["content"]["encoder_blocks"] == [1, 1]
    with pytest.raises(ConfigError, match=r"depth2\.json.*encoder_blocks"):
        merged_config([config_file("train.json"), own, overlay_file("cncl_fast")])


def test_an_overlay_that_is_no_json_is_named(tmp_path):
    own = tmp_path / "own.json"
    own.write_text("{")
    with pytest.raises(ConfigError, match=r"own\.json"):
        merged_config([config_file("train.json"), own])


@pytest.mark.parametrize("place", ["width", "_target_", "fusion", "list", "_requires_"])
def test_network_config_runs_nothing(tmp_path, place):
    proof = tmp_path / "proof"
    payload = f"$open({str(proof)!r}, 'w')"
    predictor = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 4}
    config = {"network_def": {"content": "@content_predictor"}, "content_predictor": predictor}
    if place == "fusion":
        config["network_def"]["fusion"] = payload
    else:
        predictor[place] = [payload] if place == "list" else payload
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="not run"):
        network_config(tmp_path / "best.pt")
    assert not proof.exists()


@pytest.mark.parametrize("target", ["os.system", "ct_cncl.pipeline.networksX.UNet", ["os.system"]])
def test_network_config_refuses_foreign_targets(tmp_path, target):
    (tmp_path / "config.json").write_text(json.dumps({"network_def": {"_target_": target}}))
    with pytest.raises(ConfigError, match="not run"):
        network_config(tmp_path / "best.pt")


@pytest.mark.parametrize(
    "target", ["cncl.torch.hub.load", "unet.torch.load", "initialise_gaussian", "unet.functional.relu"]
)
def test_network_config_refuses_what_the_networks_import(tmp_path, target):
    """Regression: the prefix alone lets torch through, by the name under which a network's module imports it."""
    definition = {"_target_": f"ct_cncl.pipeline.networks.{target}"}
    (tmp_path / "config.json").write_text(json.dumps({"network_def": definition}))
    with pytest.raises(ConfigError, match="not run"):
        network_config(tmp_path / "best.pt")


def test_network_config_takes_the_networks_keys_only(tmp_path):
    predictor = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 4}
    network = {"_target_": "ct_cncl.pipeline.networks.CNCL", "content": "@content_predictor"}
    everything = {"content_predictor": predictor, "network_def": network, "imports": ["$import os"]}
    (tmp_path / "config.json").write_text(json.dumps(everything))
    assert network_config(tmp_path / "best.pt") == {"content_predictor": predictor, "network_def": network}


def test_network_config_missing_or_broken(tmp_path):
    with pytest.raises(ConfigError, match="there is none"):
        network_config(tmp_path / "best.pt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        network_config(tmp_path / "best.pt")


def test_monai_does_not_warn_of_files_that_are_named(caplog):
    """Overlays lie in another folder than train.json; MONAI guesses where metadata and logging are, though both are told."""
    build_workflow([config_file("train.json"), overlay_file("cncl_fast")], overrides={"max_epochs": 1})
    assert "Not all config files" not in caplog.text
    logger = logging.getLogger("monai.bundle.workflows")
    logger.warning("Not all config files are in A.")
    assert "in A" in caplog.text


def test_root_cause():
    inner = KeyError("x")
    middle = RuntimeError("applying transform Y")
    middle.__cause__ = inner
    outer = RuntimeError("Failed to instantiate Z")
    outer.__cause__ = middle
    assert root_cause(outer) is inner
    other = RuntimeError("CUDA out of memory")
    other.__cause__ = inner
    assert root_cause(other) is other
