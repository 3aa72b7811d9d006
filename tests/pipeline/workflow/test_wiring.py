"""train.json puts the parts together as it says: every value and every object reaches the place it is named for."""

import pytest
import torch
from tiny_runs import TINY

from ct_cncl.pipeline.metrics import psnr, ssim
from ct_cncl.pipeline.workflow.run import build_workflow, config_file

VALUES = {
    "precision": "fp16",
    "learning_rate": 0.125,
    "adversarial#optimizer#lr": 0.25,
    "adversarial#d_every": 3,
    "adversarial#d_start": 4,
    "adversarial#weight": 0.75,
    "adversarial#start": 5,
    "ema#decay": 0.625,
    "train#stop_on_collapse": True,
    "train#trainer#clip_grad_norm": 0.5,
    "validate#data_range_hu": 400,
    "val_interval": 2,
    "validate#handlers#1#window": "bone",
    "max_epochs": 7,
}
"""None of them a default, no two alike."""


@pytest.fixture(scope="module")
def part(tiny_dataset, tmp_path_factory):
    """The component of a config key, of one workflow."""
    folder = tmp_path_factory.mktemp("wiring") / "run"
    overrides = TINY | VALUES | {"dataset_dir": str(tiny_dataset), "output_dir": str(folder)}
    overrides |= {"device": "$torch.device('cpu')"}
    workflow = build_workflow([config_file("train.json")], run_id="training", overrides=overrides)
    workflow.initialize()
    return workflow.parser.get_parsed_content


def handlers(part, key):
    return {type(handler).__name__: handler for handler in part(key)}


def same_parameters(optimizer, network):
    got = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return got == {id(p) for p in network.parameters()}


def test_each_optimizer_and_scheduler_has_its_own_network(part):
    for prefix, network, rate in (("", "network", 0.125), ("adversarial#", "discriminator", 0.25)):
        optimizer = part(f"{prefix}optimizer")
        assert same_parameters(optimizer, part(network))
        assert optimizer.param_groups[0]["lr"] == rate
        assert part(f"{prefix}lr_scheduler").optimizer is optimizer
    schedulers = [h.lr_scheduler for h in part("train#handlers") if type(h).__name__ == "LrScheduleHandler"]
    assert schedulers == [part("lr_scheduler"), part("adversarial#lr_scheduler")]


def test_trainer(part):
    trainer = part("train#trainer")
    assert trainer.generator.network is part("network_def")
    assert trainer.discriminator is part("discriminator")
    assert (trainer.g_optimizer, trainer.d_optimizer) == (part("optimizer"), part("adversarial#optimizer"))
    assert (trainer.pixel_loss, trainer.adversarial_loss) == (part("pixel_loss"), part("adversarial#loss"))
    names = ("precision", "d_every", "d_start", "adversarial_weight", "adversarial_start", "clip_grad_norm")
    assert [getattr(trainer, name) for name in names] == ["fp16", 3, 4, 0.75, 5, 0.5]
    assert [type(loss).__name__ for loss in trainer.extra_losses] == ["FeatureLoss"]
    assert trainer.resumable["ema"] is part("ema")
    assert trainer.state.max_epochs == 7
    assert [type(loader.dataset).__name__ for loader in (trainer.data_loader, part("validate#dataloader"))] == [
        "PatchPairs",
        "SlicePairs",
    ]


def test_evaluator(part):
    evaluator = part("validate#evaluator")
    assert evaluator.generator.network is part("ema").network
    assert (part("ema").source, part("ema").decay) == (part("network_def"), 0.625)
    assert evaluator.precision == "fp16"
    assert evaluator.state.key_metric_name == "psnr"
    metrics = part("validate#metrics")
    truth = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 50
    for suffix in ("", "_input", "_content", "_denoised"):
        for name, figure in (("psnr", psnr), ("ssim", ssim)):
            expected = figure(0.9 * truth, truth, data_range=400)
            assert metrics[f"{name}{suffix}"].metric_fn(0.9 * truth, truth).item() == expected.item()


def test_a_checkpoint_holds_every_part_that_changes(part):
    """With the trainer's own state and the random generators, all that a resumed run needs."""
    objects = handlers(part, "train#handlers")["Checkpoints"].objects
    expected = {name: part(name) for name in ("network_def", "optimizer", "lr_scheduler", "discriminator")}
    expected |= {f"d_{name}": part(f"adversarial#{name}") for name in ("optimizer", "lr_scheduler")}
    expected |= part("train#trainer").resumable
    expected |= {"ema": part("ema"), "branch_health": handlers(part, "train#handlers")["BranchHealth"]}
    assert set(objects) == {*expected, "random"}
    assert all(objects[name] is thing for name, thing in expected.items())
    stateful = [p for p in part("train#handlers") if hasattr(p, "state_dict")]
    assert stateful == [expected["branch_health"]]


def test_handlers_stand_in_the_order_they_need(part):
    """Validated before it is written, written before the rate changes, saved when all is done."""
    names = [type(handler).__name__ for handler in part("train#handlers")]
    order = ["ValidationHandler", "BranchHealth", "MetricsCSV", "StatsLog", "LrScheduleHandler", "Checkpoints"]
    assert sorted(order, key=names.index) == order
    assert names.index("LearningRateLogger") < names.index("LrScheduleHandler")
    assert names[-1] == "Checkpoints"


def test_handlers_look_at_the_one_evaluator_and_the_one_range(part):
    own = handlers(part, "train#handlers")
    assert own["ValidationHandler"].interval == 2
    for name in ("MetricsCSV", "StatsLog", "BranchHealth", "Checkpoints"):
        assert own[name].evaluator is part("validate#evaluator")
    assert own["ValidationHandler"].validator is part("validate#evaluator")
    assert own["Checkpoints"].shipped is part("ema").network
    assert own["BranchHealth"].stop is True
    assert own["BranchHealth"].supervised == part("pixel_loss").supervised
    assert own["MetricsCSV"].data_range == own["StatsLog"].data_range == 400
    expected = {"generator": part("optimizer"), "discriminator": part("adversarial#optimizer")}
    assert own["MetricsCSV"].optimizers == own["LearningRateLogger"].optimizers == expected
    pictures = handlers(part, "validate#handlers")["PicturePanel"]
    assert pictures.window == (400.0, 1800.0)
    assert pictures.writer is own["LearningRateLogger"].writer is own["BranchHealth"].writer is part("train#writer")


def test_workflow_runs_on_the_cpu(part):
    assert part("device") == torch.device("cpu")
