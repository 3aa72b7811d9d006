"""Hyper-parameters in a run's TensorBoard events: every number that says what is trained, and no machinery."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny_runs import TINY

from ct_cncl.pipeline.workflow.hyper_parameters import HPARAM_SCORES, hyper_parameters
from ct_cncl.pipeline.workflow.run import config_file, load_config


def stored(run):
    """What TensorBoard reads of a run: hyper-parameters, and the metrics beside them."""
    (folder,) = {path.parent for path in run.rglob("events.out.tfevents.*")}  # no run of their own for them
    data = EventAccumulator(str(folder)).Reload().PluginTagToContent("hparams")
    parse = lambda tag: HParamsPluginData.FromString(data[tag])  # noqa: E731
    values = parse("_hparams_/session_start_info").session_start_info.hparams
    metrics = [each.name.tag for each in parse("_hparams_/experiment").experiment.metric_infos]
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}, metrics


def test_tensorboard_has_what_the_run_was_set_to(tiny_run):
    found, metrics = stored(tiny_run)
    assert found == hyper_parameters(json.loads((tiny_run / "config.json").read_text()))
    own = {
        "batch_size": 2,
        "max_epochs": 2,
        "learning_rate": 0.0002,
        "patches.size": 32,
        "network_def.content.width": 4,
    }
    assert {key: found[key] for key in own} == own
    assert found["network_def.content.norm"] == "none"
    assert found["pixel_loss._target_"] == "ct_cncl.pipeline.losses.BranchLoss"
    assert metrics == list(HPARAM_SCORES)


def test_the_machinery_and_expressions_are_left_out():
    found = hyper_parameters(load_config([config_file("train.json")]))
    assert not {key.split(".")[0] for key in found} & {
        "train",
        "validate",
        "run",
        "initialize",
        "imports",
        "output_dir",
    }
    assert not [key for key, value in found.items() if str(value).startswith(("$", "@", "%"))]
    assert {key for key in TINY if "init_std" not in key} <= {key.replace(".", "#") for key in found}


@pytest.mark.parametrize(
    ("value", "kept"), [(True, True), ("$x()", None), (None, None), ([1, 2], "[1, 2]"), (1e-4, 1e-4)]
)
def test_kinds_of_values(value, kept):
    assert hyper_parameters({"a": {"b": value}}) == ({} if kept is None else {"a.b": kept})
