"""Resume is exact to the bit with everything that has a state: EMA, D with spectral norm, schedulers, branch health, teacher."""

import shutil

import pytest
import torch
from ignite.engine import Events
from tiny_encoders import WIDTHS, ct_checkpoint
from tiny_runs import TINY

from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, overlay_file, run_workflow

OVERLAYS = {
    "lsgan_bn": ["ema", "d_every_10"],
    "hinge": [
        "narrow",
        "gan_hinge",
        "gan_spectral",
        "ema",
        "distill_ema",
        "texture_1",
        "perceptual_1",
        "texture_centred",
    ],
    "vanilla": ["gan_vanilla", "charbonnier", "distill"],
}
COMMON = {key: value for key, value in TINY.items() if "#norm" not in key} | {
    "max_epochs": 4,
    "train#handlers#4#span": 3,
}


def same(a, b, where=""):
    """Names of all that differs by a bit."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(set(a) ^ set(b))}"]
        return [name for key in a for name in same(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)):
        return [name for k, (x, y) in enumerate(zip(a, b, strict=True)) for name in same(x, y, f"{where}/{k}")]
    return [] if a == b else [where]


@pytest.mark.parametrize("name", OVERLAYS)
def test_resume_is_bit_identical(name, tiny_dataset, tiny_run, tmp_path):
    overrides = COMMON | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")}
    if "texture_1" in OVERLAYS[name]:
        overrides |= {
            "texture#encoder#weights": str(ct_checkpoint(tmp_path / "encoder.pt")),
            "texture#encoder#widths": WIDTHS,
        }
    if "distill" in OVERLAYS[name]:
        overrides |= {
            "teacher_checkpoint": str(tiny_run / "best.pt"),
            "adversarial#start": 7,
            "patches#air_weight": 0.1,
        }
    if name == "lsgan_bn":
        overrides |= {"network_def#content#norm": "batch", "ema#decay": 0.5, "adversarial#d_every": 3}
    files = [config_file("train.json"), *(overlay_file(overlay) for overlay in OVERLAYS[name])]
    workflow = build_workflow(files, run_id="training", overrides=overrides)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.EPOCH_STARTED(once=3))
    def as_if_killed(_engine):
        shutil.copytree(tmp_path / "run", tmp_path / "killed")

    workflow.run()
    train_bundle(out=tmp_path / "killed", resume=True)
    whole, resumed = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("run", "killed"))
    assert same(whole, resumed) == []
    assert whole["trainer"]["iteration"] == 16
    assert bool(whole["ema"]) == ("ema" in "".join(OVERLAYS[name]))
    assert whole["branch_health"]["validations"] == 4
    best = [torch.load(tmp_path / run / "best.pt", weights_only=True) for run in ("run", "killed")]
    assert same(*best) == []


def test_comparison_can_fail():
    assert same({"a": [torch.ones(2)]}, {"a": [torch.ones(2) + 1e-7]}) == ["/a/0"]
    assert same({"a": 1.0}, {"a": 1.0, "b": 2}) == [": ['b']"]


def test_a_run_without_average_is_no_start_for_one_with(tiny_run, tmp_path):
    from ct_cncl.pipeline.common.errors import CheckpointError

    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    with pytest.raises(CheckpointError, match="ema in .* to fit"):
        train_bundle(out=copy, resume=True, assignments=["ema.decay=0.9", "max_epochs=3"])


def test_average_is_validated_and_shipped(tiny_dataset, tmp_path):
    """best.pt holds the average; evaluated, it has the figures of the training's last validation."""
    overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")}
    overrides |= {"ema#decay": 0.9, "max_epochs": 1, "learning_rate": 0.01}
    run_workflow(build_workflow([config_file("train.json")], run_id="training", overrides=overrides))
    best, last = (torch.load(tmp_path / "run" / f"{name}.pt", weights_only=True) for name in ("best", "last"))
    assert same(best["network_def"], last["ema"]) == []
    assert same(best["network_def"], last["network_def"]) != []

    from ct_cncl.pipeline.training.run import evaluate_run

    row = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    validated = float(dict(zip(row[0].split(","), row[1].split(",")))["psnr"])

    def figures(name, *extra):
        run = tmp_path / "run" / name
        return evaluate_run(run, out=tmp_path / f"{name}{extra}", assignments=["progress=false", *extra])["psnr"]

    assert figures("best.pt") == pytest.approx(validated, abs=1e-4)
    assert figures("last.pt") == pytest.approx(validated, abs=1e-4)
    assert abs(figures("last.pt", "averaged=false") - validated) > 1e-3
