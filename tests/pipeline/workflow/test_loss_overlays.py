"""Overlays of losses and schemes reach their places, combine with networks, and are off by default."""

import csv

import pytest
import torch
from tiny_encoders import WIDTHS, ct_checkpoint, vgg_state
from tiny_runs import TINY, assignments
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.losses import Charbonnier, HingeLoss, LeastSquaresLoss, SpectralPatchDiscriminator, VanillaLoss
from ct_cncl.pipeline.losses.encoders import VGG19, CTEncoder
from ct_cncl.pipeline.networks import Amplified, Detail, Relative
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, merged_config, overlay_file, root_cause

RUN = {key: value for key, value in TINY.items() if "predictor" not in key and "network_def" not in key}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Overrides for a tiny CT encoder."""
    path = ct_checkpoint(tmp_path_factory.mktemp("encoder") / "ct.pt", widths=[*WIDTHS, 6, 6])
    return {"texture#encoder#weights": str(path), "texture#encoder#widths": [*WIDTHS, 6, 6]}


def health_of(part):
    return next(one for one in part("train#handlers") if type(one).__name__ == "BranchHealth")


def checkpoints_of(trainer):
    """What its checkpoints hold."""
    handlers = [handler for entries in trainer._event_handlers.values() for handler, *_ in entries]
    owners = [getattr(handler, "__self__", None) for handler in handlers]
    return next(owner.objects for owner in owners if type(owner).__name__ == "Checkpoints")


@pytest.fixture
def parts(tiny_dataset, tmp_path, encoder):
    """Components of a config with overlays, by key."""

    def build(*overlays, **overrides):
        overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run")} | overrides
        if "encoder_vgg" not in overlays:
            overrides = encoder | overrides
        files = [config_file("train.json"), *(overlay_file(name) for name in overlays)]
        if merged_config(files)["discriminator"] is None:
            del overrides["discriminator#channels"]
        workflow = build_workflow(files, run_id="training", overrides=overrides)
        workflow.initialize()
        return workflow.parser.get_parsed_content

    return build


def test_by_default_the_loss_is_the_papers_and_the_rest_is_off(parts):
    part = parts()
    trainer = part("train#trainer")
    assert trainer.pixel_loss.weights == {"content": 100, "noise": 100, "fused": 100}
    assert type(trainer.pixel_loss.criterion) is nn.L1Loss
    assert type(trainer.adversarial_loss) is LeastSquaresLoss
    assert (trainer.adversarial_weight, trainer.adversarial_start, trainer.d_every, trainer.d_start) == (1, 0, 1, 0)
    (features,) = trainer.extra_losses
    assert features.encoder is None
    assert part("ema").network is part("network_def")
    assert part("validate#evaluator").generator.network is part("network_def")
    health = health_of(part)
    assert not health.stop
    assert health.supervised == ["content", "noise", "fused"]
    assert health.patience == 5
    assert "weight" not in part("train#dataset")[0]


@pytest.mark.parametrize(
    ("overlay", "loss"), [("gan_lsgan", LeastSquaresLoss), ("gan_vanilla", VanillaLoss), ("gan_hinge", HingeLoss)]
)
def test_adversarial_overlays(parts, overlay, loss):
    part = parts("texture_1", overlay)
    trainer = part("train#trainer")
    assert type(trainer.adversarial_loss) is loss
    assert trainer.discriminator is part("discriminator")
    assert trainer.adversarial_weight == 1


def test_discriminator_overlays(parts):
    part = parts("gan_spectral", "d_every_10", **{"adversarial#start": 1000})
    trainer = part("train#trainer")
    assert type(trainer.discriminator) is SpectralPatchDiscriminator
    assert (trainer.d_every, trainer.d_start, trainer.adversarial_start) == (10, 0, 1000)
    optimised = {id(p) for group in part("adversarial#optimizer").param_groups for p in group["params"]}
    assert optimised == {id(p) for p in trainer.discriminator.parameters()}


@pytest.mark.parametrize(
    ("overlay", "kind"),
    [("d_amplified", Amplified), ("d_relative", Relative), ("d_detail", Detail), ("d_result", Detail)],
)
def test_what_the_discriminator_sees(parts, overlay, kind):
    part = parts("gan_lsgan", overlay)
    judge = part("train#trainer").discriminator
    assert type(judge) is kind
    assert judge.discriminator is part("discriminator")  # what checkpoints hold and the optimizer steps
    assert getattr(judge, "judge_noise", True) == (overlay != "d_result")


@pytest.mark.parametrize("overlay", ["d_result", "d_every_10", "gan_lsgan", "gan_spectral"])
def test_what_is_said_about_a_discriminator_that_is_not_there_is_refused(overlay):
    """``pixel_only`` takes it away; an overlay that only says how it judges would be without effect, in silence."""
    files = [config_file("train.json"), overlay_file("pixel_only"), overlay_file(overlay)]
    with pytest.raises(ConfigError, match=f"Expected discriminator for {overlay}, but pixel_only has set it to null"):
        merged_config(files)


def test_a_discriminator_without_weight_is_refused(parts):
    with pytest.raises(Exception, match="Failed to instantiate") as caught:
        parts(**{"adversarial#weight": 0.0})("train#trainer")
    assert "adversarial weight above 0 with a discriminator, but got 0" in str(root_cause(caught.value))


def test_the_discriminator_may_be_null(parts):
    """Then nothing of it is built, and neither optimizer nor schedule of it is in a checkpoint."""
    trainer = parts(discriminator=None)("train#trainer")
    assert (trainer.discriminator, trainer.d_optimizer) == (None, None)
    assert not {"discriminator", "d_optimizer", "d_lr_scheduler"} & set(checkpoints_of(trainer))


def test_squares_after_relative_losses_are_squares(parts):
    """In either order: weights of 10,000 are for squares of network units, and would be 10,000 for a share."""
    assert parts("pixel_relative", "l2")("pixel_loss").relative is False
    assert parts("l2", "pixel_relative")("pixel_loss").weights["fused"] == 1.0


def test_pixel_overlays(parts):
    trainer = parts("pixel_only")("train#trainer")
    assert (trainer.discriminator, trainer.d_optimizer) == (None, None)
    assert type(parts("charbonnier")("pixel_loss").criterion) is Charbonnier
    squares = parts("l2")("pixel_loss")
    assert (type(squares.criterion), set(squares.weights.values())) == (nn.MSELoss, {10000.0})
    relative = parts("pixel_relative")("pixel_loss")
    assert relative.relative
    assert relative.weights == {"content": 0.3, "noise": 0.3, "fused": 1.0}
    assert health_of(parts(**{"pixel_loss#content": 0.0})).supervised == ["noise", "fused"]
    item = parts(**{"patches#air_weight": 0.1})("train#dataset")[0]
    assert item["weight"].shape == item["image"].shape


@pytest.mark.parametrize(
    ("overlays", "followed"), [([], ["lr_scheduler", "adversarial#lr_scheduler"]), (["pixel_only"], ["lr_scheduler"])]
)
def test_a_learning_rate_that_no_step_uses_is_not_stepped(parts, overlays, followed):
    """Without a discriminator torch warned in every run that its schedule went on before its optimizer did."""
    part = parts(*overlays)
    handlers = [one for one in part("train#handlers") if type(one).__name__ == "LrScheduleHandler"]
    assert [one.lr_scheduler for one in handlers] == [part(name) for name in followed]


@pytest.mark.parametrize(
    ("overlays", "expected"),
    [
        (("texture_0.1",), (0.1, 0, ["conv1_2", "conv2_2"], None)),
        (("texture_1", "features_deep", "texture_centred"), (1, 0, ["conv3_2", "conv4_2"], [4, 2])),
        (("perceptual_1", "features_shallow"), (0, 1, ["conv1_2", "conv2_2"], None)),
        (("perceptual_1", "texture_0.1"), (0.1, 1, ["conv1_2", "conv2_2"], None)),
    ],
)
def test_feature_overlays(parts, overlays, expected):
    (features,) = parts(*overlays)("train#trainer").extra_losses
    texture, perceptual, layers, windows = expected
    assert (features.texture, features.perceptual, features.layers) == (texture, perceptual, layers)
    assert features.windows == (windows or [None, None])
    assert isinstance(features.encoder, CTEncoder)


def test_vgg_overlay_takes_a_local_file(parts, tmp_path):
    torch.save(vgg_state(), tmp_path / "vgg.pth")
    (features,) = parts("encoder_vgg", "texture_1", **{"texture#encoder#weights": str(tmp_path / "vgg.pth")})(
        "train#trainer"
    ).extra_losses
    assert isinstance(features.encoder, VGG19)
    assert torch.equal(features.encoder.features[0].weight, vgg_state()["features.0.weight"])
    assert not any(parameter.requires_grad for parameter in features.encoder.parameters())


def test_ema_and_distillation_overlays(parts, tiny_run):
    part = parts("ema")
    assert part("ema").decay == 0.999
    assert part("validate#evaluator").generator.network is part("ema").network is not part("network_def")
    part("train#trainer")  # its handlers are attached to it
    checkpoints = part("train#handlers")[-1]
    assert checkpoints.shipped is part("ema").network
    assert checkpoints.objects["network_def"] is part("network_def")

    part = parts("distill", teacher_checkpoint=str(tiny_run / "best.pt"))
    _, distillation = part("train#trainer").extra_losses
    teacher = torch.load(tiny_run / "best.pt", weights_only=True)["network_def"]
    assert all(torch.equal(value, teacher[name]) for name, value in distillation.teacher.network.state_dict().items())
    assert distillation.weights == {"content": 50, "noise": 50, "fused": 50}

    part = parts("distill_ema")
    assert part("train#trainer").extra_losses[1].teacher.network is part("ema").network


def test_a_larger_network_teaches_a_smaller_one(tiny_dataset, tiny_run, tmp_path):
    """By its checkpoint and the config beside it; what it teaches is what it makes of the images."""
    widths = {f"network_def#{branch}#width": 2 for branch in ("content", "noise")}
    overrides = (
        TINY | widths | {"teacher_checkpoint": str(tiny_run / "best.pt"), "max_epochs": 1, "learning_rate": 1e-30}
    )
    workflow = train_bundle(
        out=tmp_path / "run", data=tiny_dataset, overlays=["distill"], assignments=assignments(overrides)
    )
    part = workflow.parser.get_parsed_content
    teacher = part("train#trainer").extra_losses[1].teacher
    counts = [sum(p.numel() for p in network.parameters()) for network in (teacher, part("network_def"))]
    assert counts[0] > 3 * counts[1]
    terms = []
    for number in range(0, 8, 2):  # with a learning rate that no weight can see, every batch of the epoch again
        image = torch.stack([part("train#dataset")[number + k]["image"] for k in range(2)])
        with torch.no_grad():
            student, taught = part("train#trainer").generator(image), teacher(image)
        terms.append([50 * (own - other).abs().mean().item() for own, other in zip(student, taught)])
    with (tmp_path / "run" / "metrics.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    expected = torch.tensor(terms).mean(0).tolist()
    found = [float(row[f"loss_distil_{name}"]) for name in ("content", "noise", "fused")]
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found) > 0


def test_distill_without_a_teacher_says_what_is_missing(tiny_dataset, tmp_path):
    with pytest.raises(CheckpointError, match=r"teacher_checkpoint=\.\.\."):
        train_bundle(out=tmp_path / "run", data=tiny_dataset, overlays=["distill"], assignments=assignments(TINY))


def test_texture_without_an_encoder_says_what_is_missing(tiny_dataset, tmp_path):
    overrides = [*assignments(TINY), f"texture.encoder.weights={tmp_path / 'none.pt'}"]
    with pytest.raises(CheckpointError, match=r"--with ct_encoder"):
        train_bundle(out=tmp_path / "run", data=tiny_dataset, overlays=["texture_1"], assignments=overrides)


@pytest.mark.parametrize(
    "overlays",
    [
        ("fast", "gan_hinge", "texture_0.1", "ema"),
        ("unet_ln_gelu", "width16", "dual", "gan_vanilla", "perceptual_1", "texture_centred", "texture_1"),
        ("redcnn", "patchgan", "gan_lsgan", "texture_1", "features_deep"),
        ("narrow", "charbonnier", "distill_ema", "gan_spectral", "d_relative", "d_every_10"),
    ],
)
def test_overlays_combine_with_networks(overlays, encoder, tiny_dataset, tmp_path):
    overrides = encoder | RUN | {"max_epochs": 1, "adversarial#d_every": 2, "patches#air_weight": 0.1}
    train_bundle(out=tmp_path / "run", data=tiny_dataset, overlays=overlays, assignments=assignments(overrides))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    names = {"loss", "loss_fused", "loss_adversarial", "loss_discriminator", "d_accuracy", "edge_correlation"}
    names |= {"loss_texture_fused"} if "texture" in " ".join(overlays) else set()
    names |= {"loss_perceptual_fused"} if "perceptual_1" in overlays else set()
    names |= {"loss_distil_content", "loss_distil_fused"} if "distill_ema" in overlays else set()
    assert all(torch.isfinite(torch.tensor(float(row[name]))) for name in names)
    assert 0 <= float(row["d_accuracy"]) <= 1


def test_the_ct_encoder_trains_by_its_config_and_serves_as_encoder(tiny_dataset, tmp_path):
    overlay = "ct_encoder"
    small = {key: value for key, value in RUN.items() if "discriminator" not in key} | {
        "network_def#widths": WIDTHS,
        "network_def#code": 3,
        "max_epochs": 3,
        "learning_rate": 0.01,
    }
    train_bundle(out=tmp_path / "encoder", data=tiny_dataset, overlays=[overlay], assignments=assignments(small))
    with (tmp_path / "encoder" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["rmse"]) < 0.9 * float(rows[0]["rmse"])
    assert {row["psnr_input"] for row in rows} == {"inf"}  # it is given the reference, and draws it
    assert [row["branch_health"] for row in rows] == ["", "", ""]

    weights = str(tmp_path / "encoder" / "best.pt")
    overrides = TINY | {"texture#encoder#weights": weights, "texture#encoder#widths": WIDTHS, "max_epochs": 1}
    train_bundle(out=tmp_path / "run", data=tiny_dataset, overlays=["texture_1"], assignments=assignments(overrides))
    metrics = evaluate_run(tmp_path / "run", assignments=["progress=false"])
    assert metrics["psnr"] > 0


def test_the_ct_encoder_of_the_bundle_has_the_widths_that_its_config_trains():
    from ct_cncl.pipeline.losses.encoders.ct import WIDTHS as FULL
    from ct_cncl.pipeline.workflow.run import load_config

    config = load_config([config_file("train.json"), overlay_file("ct_encoder")])
    assert tuple(config["network_def"]["widths"]) == FULL
    assert config["texture"]["encoder"]["weights"].endswith("'models', 'ct_encoder.pt')")
