"""Loss scaling in the trainer, with torch's own scaler on the CPU: what fp16 does on CUDA, without half precision."""

import copy

import pytest
import torch
from ignite.engine import Events
from scaled_trainer import MAXIMUM, judging, network, trainer, weights
from torch import nn

from ct_cncl.pipeline.networks import precision


def test_overflow_skips_the_step_and_halves_the_scale():
    generator = network()
    before = weights(generator)
    engine = trainer(generator, g_scale=MAXIMUM)
    engine.run()
    assert torch.equal(weights(generator), before)
    assert engine.g_scaler.get_scale() == MAXIMUM / 2
    assert torch.isfinite(engine.state.output["loss"])  # what is reported is not scaled


def test_training_goes_on_once_the_scale_fits():
    """Halved in every iteration that overflows, then kept: it grows after 2000 good steps."""
    generator = network()
    before, moved = weights(generator), []
    engine = trainer(generator, g_scale=MAXIMUM, iterations=30)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: moved.append(not torch.equal(weights(generator), before))
    )
    engine.run()
    skipped = moved.index(True)
    assert 3 <= skipped <= 25
    assert all(moved[skipped:])
    assert engine.g_scaler.get_scale() == MAXIMUM / 2**skipped


@pytest.mark.parametrize("clip_grad_norm", [None, 0.01, 1e6])
def test_a_scale_that_fits_changes_nothing(clip_grad_norm):
    """Clipping counts the gradient itself, not the scaled one: scales are powers of two, so equal to rounding."""
    results = []
    for scale in (None, 2.0**10):
        generator, judge = network(), judging()
        engine = trainer(
            generator, g_scale=scale, d_scale=scale, judge=judge, iterations=3, clip_grad_norm=clip_grad_norm
        )
        engine.run()
        results.append((weights(generator), weights(judge)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
    assert not torch.equal(results[0][0], weights(network()))


def test_overflow_of_one_network_leaves_the_other_its_step():
    for overflowing in ("g", "d"):
        generator, judge = network(), judging()
        nn.init.constant_(judge.convolution.bias, 10.0)  # so that its loss, too, is infinite with the largest scale
        before = {"g": weights(generator), "d": weights(judge)}
        scales = {"g_scale": 8.0, "d_scale": 8.0} | {f"{overflowing}_scale": MAXIMUM}
        engine = trainer(generator, judge=judge, **scales)
        engine.run()
        moved = {
            "g": not torch.equal(weights(generator), before["g"]),
            "d": not torch.equal(weights(judge), before["d"]),
        }
        assert moved == {"g": overflowing == "d", "d": overflowing == "g"}
        assert {"g": engine.g_scaler.get_scale(), "d": engine.d_scaler.get_scale()} == {
            name: MAXIMUM / 2 if name == overflowing else 8.0 for name in ("g", "d")
        }


def test_an_infinite_loss_is_the_scalers_business_where_it_is_on():
    """With fp16 the forward pass itself may overflow; without it, an infinite loss ends the training."""

    def infinite(predicted, image, label):
        return {"fused": predicted.fused.mean() * float("inf")}

    generator = network()
    before = copy.deepcopy(generator.state_dict())
    engine = trainer(generator, g_scale=1024.0, pixel_loss=infinite)
    engine.run()
    assert engine.g_scaler.get_scale() == 512
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    with pytest.raises(FloatingPointError, match="finite losses, but got loss_fused = inf in iteration 1"):
        trainer(network(), pixel_loss=infinite).run()


def test_a_checkpoint_gets_both_scalers():
    engine = trainer(network(), g_scale=4.0, d_scale=16.0)
    assert {name: engine.resumable[name].state_dict()["scale"] for name in ("g_scaler", "d_scaler")} == {
        "g_scaler": 4.0,
        "d_scaler": 16.0,
    }
    assert engine.resumable["trainer"] is engine


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_scaler_is_on_for_fp16_on_cuda_only(monkeypatch, device, name):
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, *, enabled: (kind, enabled))
    expected = (device, device == "cuda" and name == "fp16")
    assert precision.gradient_scaler(torch.device(device), name) == expected


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_autocast_on_cuda_is_to_the_named_type(name, dtype):
    context = precision.autocast(torch.device("cuda", 0), name)
    assert isinstance(context, torch.autocast)
    assert (context.device, context.fast_dtype) == ("cuda", dtype)


def test_fp32_on_cuda_is_left_alone():
    assert not isinstance(precision.autocast(torch.device("cuda", 0), "fp32"), torch.autocast)


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.float32), ("fp16", torch.float32), ("bf16_any", torch.bfloat16)]
)
def test_the_cpu_computes_in_bf16_only_where_it_is_asked_to(name, dtype):
    convolution = torch.nn.Conv2d(1, 1, 3)
    with precision.autocast(torch.device("cpu"), name):
        assert convolution(torch.zeros(1, 1, 4, 4)).dtype == dtype
