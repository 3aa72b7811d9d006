"""A loss that is not finite ends a training in one sentence; under fp16 single ones are skipped and said."""

import logging

import pytest
import torch
from ignite.engine import Engine, Events
from scaled_trainer import network, trainer, weights

from ct_cncl.pipeline.engines.finite_losses import LEAST_SCALE, FiniteLosses
from ct_cncl.pipeline.networks.precision import gradient_scaler

OFF = gradient_scaler(torch.device("cpu"), "fp32")


def run(outputs, *, epochs=1, after=None):
    """An engine with these outputs, as floats by name, in every epoch."""
    engine = Engine(lambda _engine, output: {name: torch.tensor(value) for name, value in output.items()})
    engine.g_scaler = engine.d_scaler = OFF
    FiniteLosses().attach(engine)
    if after is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, after)
    engine.run(outputs, max_epochs=epochs)


FINE = {"loss": 3.0, "loss_fused": 1.0, "loss_texture_fused": 2.0}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loss": NAN, "loss_texture_fused": NAN}, "got loss_texture_fused = nan in iteration 4. Lower"),
        ({"loss": INF, "loss_fused": 1e30}, "got loss = inf in iteration 4. "),
        ({"loss_discriminator": NAN, "d_real": INF}, "got loss_discriminator = nan, d_real = inf in iteration 4. "),
    ],
)
def test_the_term_and_the_iteration_are_named(wrong, said):
    with pytest.raises(FloatingPointError, match=said) as caught:
        run([FINE] * 3 + [FINE | wrong] + [{"loss": NAN}] * 30)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 9, 10, 12])
def test_nothing_of_the_epoch_is_saved(place):
    saved = []
    with pytest.raises(FloatingPointError, match=f"iteration {place + 1}\\."):
        run([FINE] * place + [{"loss": NAN}] + [FINE] * (12 - place), after=saved.append)
    assert saved == []


def test_finite_losses_pass_in_every_epoch():
    saved = []
    run([FINE] * 13, epochs=3, after=saved.append)
    assert len(saved) == 3


def test_the_device_is_asked_every_tenth_iteration(monkeypatch):
    """A float of a tensor on CUDA would stall every iteration."""
    asked = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, original=original, name=name: asked.append(name) or original(tensor)
        )
    run([FINE] * 25)
    assert asked == ["tolist"] * 3


def losses(bad):
    """A pixel loss that is NaN in the iterations of ``bad``, counted from 0."""
    count = iter(range(10_000))

    def pixel_loss(predicted, image, label):
        factor = NAN if next(count) in bad else 1.0
        return {"fused": factor * (predicted.fused - label).abs().mean()}

    return pixel_loss


def test_fp16_skips_a_loss_that_is_not_finite_and_says_so(caplog):
    generator = network()
    before, moved = weights(generator), []
    engine = trainer(generator, g_scale=2.0**10, iterations=12, pixel_loss=losses({2, 7}))

    @engine.on(Events.ITERATION_COMPLETED)
    def note(_engine):
        moved.append(not torch.equal(weights(generator), before[:]))
        before.copy_(weights(generator))

    with caplog.at_level(logging.INFO, logger="ct_cncl"):
        engine.run()
    assert moved == [number not in {2, 7} for number in range(12)]
    assert weights(generator).isfinite().all()
    warning, scale = (record.getMessage() for record in caplog.records if "fp16" in record.getMessage())
    assert warning == (
        "fp16, epoch 1: 2 iterations were skipped because a loss was not finite, the first with loss_fused = nan in "
        "iteration 3."
    )
    assert scale.endswith("its loss scale fell from 1024 to 256.")


def test_fp16_ends_where_no_scale_helps():
    engine = trainer(network(), g_scale=2.0**10, iterations=60, pixel_loss=losses(range(60)))
    with pytest.raises(FloatingPointError, match=r"gradients of the generator.*loss_fused = nan in iteration 1\)"):
        engine.run()
    assert engine.state.iteration == 30  # 2^10 is below 2^-10 after 21 halvings; seen with the next ten
    assert engine.g_scaler.get_scale() < LEAST_SCALE


def test_fp16_ends_where_gradients_overflow_and_losses_do_not():
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(_context, x):
            return x.clone()

        @staticmethod
        def backward(_context, gradient):
            return gradient * INF

    engine = trainer(
        network(),
        g_scale=2.0**10,
        iterations=60,
        pixel_loss=lambda predicted, image, label: {"fused": Steep.apply(predicted.fused).square().mean()},
    )
    with pytest.raises(FloatingPointError, match=r"scale of \d.*e-\d+\. Set precision=bf16"):
        engine.run()
