"""When the discriminator steps and judges, what other losses and pixel weights do in the generator's step."""

import copy
import functools
import itertools

import pytest
import torch
from ignite.engine import Events
from tiny_encoders import WIDTHS, ct_checkpoint
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLTrainer
from ct_cncl.pipeline.losses import (
    BranchLoss,
    Charbonnier,
    DistillationLoss,
    FeatureLoss,
    HingeLoss,
    LeastSquaresLoss,
    VanillaLoss,
)
from ct_cncl.pipeline.losses.encoders import CTEncoder
from ct_cncl.pipeline.networks import CNCL, BranchOutputs, ConvFusion


def network():
    torch.manual_seed(1)
    return CNCL(content=nn.Conv2d(1, 1, 3, padding=1), noise=nn.Conv2d(1, 1, 3, padding=1), fusion=ConvFusion())


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.convolution = nn.Conv2d(3, 1, 3)

    def forward(self, x):
        return [x, self.convolution(x)]


def items(count, *, weights=False):
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(count, 1, 8, 8, generator=generator)
    image = label + 0.1 * torch.randn(label.shape, generator=generator)
    weight = torch.rand(label.shape, generator=generator)
    return [{"image": y, "label": x} | ({"weight": w} if weights else {}) for y, x, w in zip(image, label, weight)]


def train(own, judge=None, *, count=1, weights=False, **options):
    """One epoch of ``count`` batches of two; returns the outputs and both networks' weights after every iteration."""
    if judge is not None:
        options = {
            "discriminator": judge,
            "d_optimizer": torch.optim.SGD(judge.parameters(), lr=0.01),
            "adversarial_loss": LeastSquaresLoss(),
        } | options
    engine = CNCLTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(items(2 * count, weights=weights), batch_size=2),
        generator=BranchOutputs(own),
        g_optimizer=torch.optim.SGD(own.parameters(), lr=0.01),
        **{"pixel_loss": BranchLoss(content=1, noise=2, fused=3)} | options,
    )
    outputs, states = [], []

    @engine.on(Events.ITERATION_COMPLETED)
    def note(engine):
        outputs.append(engine.state.output)
        states.append(copy.deepcopy([module.state_dict() for module in (own, judge) if module is not None]))

    engine.run()
    return outputs, states


@pytest.mark.parametrize("adversarial", [LeastSquaresLoss, VanillaLoss, HingeLoss])
@pytest.mark.parametrize(
    "pixel",
    [{}, {"criterion": nn.MSELoss(reduction="none")}, {"criterion": Charbonnier(epsilon=1e-3)}, {"relative": True}],
)
def test_gradients_of_all_losses_together_are_finite_in_bfloat16(adversarial, pixel, tmp_path):
    """As training on the CPU runs with ``bf16_any``: pixel, adversarial, texture, perceptual and distillation losses at once."""
    own, judge = network(), Judge()
    encoder = functools.partial(CTEncoder, weights=ct_checkpoint(tmp_path / "best.pt"), widths=WIDTHS)
    device = torch.device("cpu")
    features = FeatureLoss(
        encoder, layers=["conv1_2"], device=device, texture=1.0, perceptual=1.0, precision="bf16_any"
    )
    taught = DistillationLoss(network(), device=device, content=1.0, noise=1.0, fused=1.0, precision="bf16_any")
    taught.teacher.load_state_dict({name: 0.5 * value for name, value in taught.teacher.state_dict().items()})
    outputs, _ = train(
        own,
        judge,
        count=1,
        precision="bf16_any",
        adversarial_loss=adversarial(),
        pixel_loss=BranchLoss(content=1, noise=2, fused=3, **pixel),
        extra_losses=[features, taught],
    )
    names = {"loss_content", "loss_noise", "loss_fused", "loss_adversarial", "loss_discriminator"}
    names |= {
        "loss_texture_fused",
        "loss_perceptual_fused",
        "loss_distil_content",
        "loss_distil_noise",
        "loss_distil_fused",
    }
    assert names <= set(outputs[-1])
    assert all(value.isfinite() for output in outputs for value in output.values())
    for parameter in [*own.parameters(), *judge.parameters()]:
        assert parameter.grad.isfinite().all()
        assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0  # of a hinge loss a bias may have none


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("d_every", [1, 10])
def test_the_discriminator_steps_every_kth_iteration_and_judges_in_all(d_every):
    judge = Judge()
    before = copy.deepcopy(judge.state_dict())
    outputs, states = train(network(), judge, count=21, d_every=d_every)
    weights = [before, *(state[1] for state in states)]
    stepped = [not same(a, b) for a, b in itertools.pairwise(weights)]
    assert stepped == [number % d_every == 0 for number in range(1, 22)]
    assert [("loss_discriminator" in output) for output in outputs] == stepped
    assert [("d_accuracy" in output) for output in outputs] == stepped
    assert all("loss_adversarial" in output for output in outputs)


def test_warm_up_is_a_training_with_pixel_losses_alone():
    """To the bit; the discriminator learns meanwhile, and judges from then on."""
    alone, states_alone = train(network(), count=6)
    outputs, states = train(network(), Judge(), count=6, adversarial_start=4)
    for number in range(4):
        assert same(states[number][0], states_alone[number][0])
        assert outputs[number]["loss"].item() == alone[number]["loss"].item()
    assert not same(states[4][0], states_alone[4][0])
    assert [("loss_adversarial" in output) for output in outputs] == [False] * 4 + [True] * 2
    assert all("loss_discriminator" in output for output in outputs)


def test_the_discriminator_may_rest_in_the_warm_up_too():
    judge = Judge()
    before = copy.deepcopy(judge.state_dict())
    outputs, states = train(network(), judge, count=6, d_start=3, adversarial_start=5)
    assert [("loss_discriminator" in output) for output in outputs] == [False] * 3 + [True] * 3
    assert [("loss_adversarial" in output) for output in outputs] == [False] * 5 + [True]
    assert same(states[2][1], before)
    assert not same(states[3][1], before)


@pytest.mark.parametrize("starts", [{"d_start": -1}, {"d_start": 5}, {"d_start": 5, "adversarial_start": 4}])
def test_a_discriminator_must_not_judge_before_it_learns(starts):
    with pytest.raises(ValueError, match="0 <= d_start <= adversarial_start"):
        train(network(), Judge(), **starts)


@pytest.mark.parametrize("kind", [LeastSquaresLoss, VanillaLoss, HingeLoss])
def test_every_adversarial_loss_trains_as_worked_out_by_hand(kind):
    own, judge, loss = network(), Judge(), kind()
    reference, d = copy.deepcopy(own), copy.deepcopy(judge)
    (output,), _ = train(own, judge, adversarial_loss=loss, adversarial_weight=0.5)
    batch = items(2)
    image, label = (torch.stack([item[key] for item in batch]) for key in ("image", "label"))
    _, noise, fused = reference.branches(image)
    real = d(torch.cat([label, image - label, image], 1))[-1]
    fake = d(torch.cat([fused, noise, image], 1).detach())[-1]
    d_loss = loss.discriminator(real, fake)
    gradients = torch.autograd.grad(d_loss, list(d.parameters()))
    accuracy = ((real > loss.boundary).float().mean() + (fake < loss.boundary).float().mean()).item() / 2
    with torch.no_grad():
        for parameter, gradient in zip(d.parameters(), gradients):
            parameter.sub_(0.01 * gradient)
    total = BranchLoss(content=1, noise=2, fused=3)(reference.branches(image), image, label)
    total = sum(total.values()) + 0.5 * loss.generator(d(torch.cat([fused, noise, image], 1))[-1])
    gradients = torch.autograd.grad(total, list(reference.parameters()))
    for parameter, start, gradient in zip(own.parameters(), reference.parameters(), gradients):
        torch.testing.assert_close(parameter, start - 0.01 * gradient)
    for parameter, expected in zip(judge.parameters(), d.parameters()):
        torch.testing.assert_close(parameter, expected)
    assert output["d_accuracy"].item() == pytest.approx(accuracy)
    assert output["loss_discriminator"].item() == pytest.approx(d_loss.item(), rel=1e-5)


def test_accuracy_of_a_discriminator_that_knows():
    """Its logit is the reference's: real images are one brighter."""

    class Knowing(Judge):
        def forward(self, x):
            return [
                0.0 * self.convolution(x)
                + (1.0 if x.shape[0] == 4 else 0.0) * torch.tensor([1.0, 1, 0, 0]).view(-1, 1, 1, 1)[: x.shape[0]]
            ]

    (output,), _ = train(network(), Knowing())
    assert output["d_accuracy"].item() == 1.0
    assert (output["d_real"].item(), output["d_fake"].item()) == (1.0, 0.0)


def test_extra_losses_are_added_and_reported_by_name():
    seen = []

    def first(predicted, image, label):
        seen.append((image.shape, label.shape))
        return {"texture_fused": 5 * (predicted.fused - label).square().mean()}

    def second(predicted, image, label):
        return {"distil_noise": predicted.noise.abs().mean(), "distil_fused": predicted.fused.abs().mean()}

    own = network()
    reference = copy.deepcopy(own)
    (output,), _ = train(own, extra_losses=[first, None, second])
    batch = items(2)
    image, label = (torch.stack([item[key] for item in batch]) for key in ("image", "label"))
    predicted = reference.branches(image)
    terms = BranchLoss(content=1, noise=2, fused=3)(predicted, image, label)
    terms = terms | first(predicted, image, label) | second(predicted, image, label)
    assert {f"loss_{name}": value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in output.items() if name.startswith("loss_")}, rel=1e-6
    )
    assert output["loss"].item() == pytest.approx(sum(terms.values()).item(), rel=1e-6)
    gradients = torch.autograd.grad(sum(terms.values()), list(reference.parameters()))
    for parameter, start, gradient in zip(own.parameters(), reference.parameters(), gradients):
        torch.testing.assert_close(parameter, start - 0.01 * gradient)


def test_extra_losses_see_all_slices_and_pixel_losses_the_centre():
    shapes = []

    def extra(predicted, image, label):
        shapes.append(tuple(image.shape))
        return {"extra": predicted.fused.mean()}

    def pixel(predicted, image, label):
        shapes.append(tuple(image.shape))
        return {"fused": predicted.fused.mean()}

    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 1, 1)

        def forward(self, x):
            return self.convolution(x)

    data = [{"image": item["image"].repeat(3, 1, 1), "label": item["label"]} for item in items(2)]
    own = Context()
    CNCLTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(data, batch_size=2),
        generator=BranchOutputs(own),
        g_optimizer=torch.optim.SGD(own.parameters(), lr=0.01),
        pixel_loss=pixel,
        extra_losses=[extra],
    ).run()
    assert shapes == [(2, 1, 8, 8), (2, 3, 8, 8)]


def test_pixel_weights_of_the_batch_reach_the_pixel_loss():
    own = network()
    reference = copy.deepcopy(own)
    (output,), _ = train(own, weights=True)
    batch = items(2, weights=True)
    image, label, weight = (torch.stack([item[key] for item in batch]) for key in ("image", "label", "weight"))
    fused = reference.branches(image).fused
    assert output["loss_fused"].item() == pytest.approx(3 * (weight * (fused - label).abs()).mean().item(), rel=1e-6)


@pytest.mark.parametrize("kind", [VanillaLoss, HingeLoss, LeastSquaresLoss])
def test_adversarial_gradients_are_finite_however_large_the_logits(kind):
    """A discriminator that has run away, as it may under mixed precision."""

    class Runaway(Judge):
        def forward(self, x):
            return [1e4 * self.convolution(x)]

    own = network()
    (output,), _ = train(own, Runaway(), adversarial_loss=kind(), clip_grad_norm=1.0)
    assert all(value.isfinite() for value in output.values())
    assert all(parameter.isfinite().all() for parameter in own.parameters())
