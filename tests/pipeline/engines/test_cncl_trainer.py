import copy
from contextlib import contextmanager

import pytest
import torch
from tiny_trainer import Judge, items, tiny_network, trainer
from torch.utils.data import DataLoader

from ct_cncl.pipeline.losses import BranchLoss


def test_one_iteration_equals_plain_torch():
    network = tiny_network()
    reference = copy.deepcopy(network).train()
    engine = trainer(network)
    engine.run()

    image, label = (torch.stack([item[key] for item in items()]) for key in ("image", "label"))
    content, noise, fused = reference.branches(image)
    loss = (
        (content - label).abs().mean() + 2 * (noise - (image - label)).abs().mean() + 3 * (fused - label).abs().mean()
    )
    loss.backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.sub_(0.1 * parameter.grad)
    for (name, got), expected in zip(network.state_dict().items(), reference.state_dict().values()):
        torch.testing.assert_close(got, expected, msg=lambda text, name=name: f"{name}: {text}")
    assert engine.state.output["loss"].item() == pytest.approx(loss.item(), rel=1e-6)


def test_adversarial_iteration_equals_plain_torch():
    network, judge = tiny_network(), Judge()
    reference, d = copy.deepcopy(network).train(), copy.deepcopy(judge)
    engine = trainer(network, judge=judge, adversarial_weight=0.5)
    engine.run()

    image, label = (torch.stack([item[key] for item in items()]) for key in ("image", "label"))
    content, noise, fused = reference.branches(image)
    real, fake = torch.cat([label, image - label, image], 1), torch.cat([fused, noise, image], 1)
    torch.testing.assert_close(judge.seen[0], torch.cat([real, fake]).detach())
    torch.testing.assert_close(judge.seen[1], fake.detach())
    assert judge.frozen == [False, True]
    assert judge.convolution.weight.requires_grad

    means = {"d_real": d(real)[-1].mean().item(), "d_fake": d(fake)[-1].mean().item()}
    d_loss = 0.5 * (((d(real)[-1] - 1) ** 2).mean() + (d(fake.detach())[-1] ** 2).mean())
    d_loss.backward()
    with torch.no_grad():
        for parameter in d.parameters():
            parameter.sub_(0.01 * parameter.grad)
    pixel = (content - label).abs().mean() + 2 * (noise - image + label).abs().mean() + 3 * (fused - label).abs().mean()
    loss = pixel + 0.5 * ((d(fake)[-1] - 1) ** 2).mean()
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    for parameter, start, gradient in zip(network.parameters(), reference.parameters(), gradients):
        torch.testing.assert_close(parameter, start - 0.1 * gradient)
    for parameter, expected in zip(judge.parameters(), d.parameters()):
        torch.testing.assert_close(parameter, expected)
        torch.testing.assert_close(parameter.grad, expected.grad)  # none from the generator's step
    assert engine.state.output["loss_discriminator"].item() == pytest.approx(d_loss.item(), rel=1e-5)
    assert {name: engine.state.output[name].item() for name in means} == pytest.approx(means, rel=1e-5)
    assert engine.state.output["loss"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_discriminator_steps_every_third_iteration():
    judge = Judge()
    weights, stepped = [judge.convolution.weight.detach().clone()], []
    engine = trainer(tiny_network(), judge=judge, count=14, d_every=3)

    class Watch:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

        def __call__(self, engine):
            now = judge.convolution.weight.detach().clone()
            stepped.append(not torch.equal(now, weights[-1]))
            weights.append(now)
            assert ("loss_discriminator" in engine.state.output) == stepped[-1]

    Watch().attach(engine)
    engine.run()
    assert stepped == [False, False, True, False, False, True, False]


def test_clip_grad_norm_bounds_the_step():
    network = tiny_network()
    before = [p.detach().clone() for p in network.parameters()]
    trainer(network, clip_grad_norm=0.01).run()
    moved = torch.sqrt(sum(((p - b) ** 2).sum() for p, b in zip(network.parameters(), before))).item()
    assert moved == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_loss_that_is_not_finite_ends_the_training():
    def broken(predicted, image, label):
        return {"fused": predicted.fused.mean() * float("nan")}

    with pytest.raises(FloatingPointError, match="iteration 1"):
        trainer(tiny_network(), pixel_loss=broken).run()


def test_state_goes_into_a_new_trainer_and_a_finished_run_trains_nothing():
    network = tiny_network()
    first = trainer(network, count=4, max_epochs=2)
    first.run()
    assert (first.state.epoch, first.state.iteration) == (2, 4)
    second = trainer(network, count=4, max_epochs=2)
    second.load_state_dict(first.state_dict())
    before = copy.deepcopy(network.state_dict())
    second.run()
    assert (second.state.epoch, second.state.iteration) == (2, 4)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_cpu_ignores_precision():
    losses = {}
    for precision in ("fp32", "bf16", "fp16"):
        engine = trainer(tiny_network(), judge=None, precision=precision)
        engine.run()
        losses[precision] = engine.state.output["loss"].item()
    assert losses["fp32"] == losses["bf16"] == losses["fp16"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_close_to_fp32(precision):
    device, losses = torch.device("cuda"), {}
    for name in ("fp32", precision):
        torch.manual_seed(0)
        judge = Judge().to(device)
        engine = trainer(tiny_network().to(device), judge=judge, device=device, precision=name)
        engine.run()
        losses[name] = {key: value.item() for key, value in engine.state.output.items() if key.startswith("loss")}
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.05, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"d_every": 0},
        {"d_every": 2.5},
        {"adversarial_weight": -1.0},
        {"judge": Judge(), "adversarial_weight": 0.0},
        {"precision": "fp8"},
        {"max_epochs": 0},
        {"judge": Judge(), "d_optimizer": None},
    ],
)
def test_refused_options(options):
    with pytest.raises(ValueError, match="Expected"):
        trainer(tiny_network(), **options)


def test_both_networks_are_trained_in_train_mode():
    """As they come after a validation, or from a checkpoint that was evaluated first: in eval mode."""
    network, judge, modes = tiny_network().eval(), Judge().eval(), []
    network.content.register_forward_hook(lambda module, *_: modes.append(module.training))
    judge.convolution.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer(network, judge=judge).run()
    assert modes == [True, True, True]


def test_reported_terms_hold_no_graph():
    """Kept over an epoch, a graph an iteration would fill the memory."""
    engine = trainer(tiny_network(), judge=Judge())
    engine.run()
    assert {"loss", "loss_fused", "loss_adversarial", "loss_discriminator", "d_real", "d_fake"} <= set(
        engine.state.output
    )
    assert not any(value.requires_grad for value in engine.state.output.values())


def test_the_sampler_is_told_every_epoch():
    class Sampler(list):
        def set_epoch(self, epoch):
            told.append(epoch)

    told = []
    engine = trainer(tiny_network(), count=4, max_epochs=3)
    engine.data_loader = DataLoader(items(4), batch_size=2, sampler=Sampler(range(4)))
    engine.run()
    assert told == [1, 2, 3]


def test_every_network_runs_under_autocast_and_no_loss_does(monkeypatch):
    active, seen = [], []

    @contextmanager
    def autocast(device, precision):
        active.append((device.type, precision))
        yield
        active.pop()

    def pixel_loss(*arguments):
        assert active == []
        return BranchLoss()(*arguments)

    monkeypatch.setattr("ct_cncl.pipeline.engines.trainer.autocast", autocast)
    network, judge = tiny_network(), Judge()
    for module in (network.content, judge.convolution):
        module.register_forward_hook(lambda *_: seen.append(tuple(active)))
    trainer(network, judge=judge, precision="bf16", pixel_loss=pixel_loss).run()
    assert seen == [(("cpu", "bf16"),)] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_epochs": 1.5}, "a whole number of at least 1"), ({"count": 0}, "nothing would be trained")],
)
def test_a_training_of_no_batch_or_half_an_epoch_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        trainer(tiny_network(), **options)
