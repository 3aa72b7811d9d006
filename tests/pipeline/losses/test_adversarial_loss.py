import numpy as np
import pytest
import torch

from ct_cncl.pipeline.losses import HingeLoss, LeastSquaresLoss, VanillaLoss, discriminator_accuracy


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(2, 1, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_discriminator_equals_hand_computation(logits):
    """Regression: MONAI's default squares leaky ReLUs of the logits; half of these are negative."""
    real, fake = logits
    expected = 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())
    assert LeastSquaresLoss().discriminator(real, fake).item() == pytest.approx(expected.item(), rel=1e-6)


def test_generator_equals_hand_computation(logits):
    _, fake = logits
    assert LeastSquaresLoss().generator(fake).item() == pytest.approx(((fake - 1) ** 2).mean().item(), rel=1e-6)


def test_gradients_pull_in_opposite_directions():
    fake = torch.tensor([[[[-2.0]]]], requires_grad=True)
    loss = LeastSquaresLoss()
    (generator,) = torch.autograd.grad(loss.generator(fake), fake)
    (discriminator,) = torch.autograd.grad(loss.discriminator(torch.zeros_like(fake), fake), fake)
    assert generator.item() == pytest.approx(2 * (-2 - 1))
    assert discriminator.item() == pytest.approx(0.5 * 2 * -2)


def test_perfect_discriminator_has_no_loss():
    assert LeastSquaresLoss().discriminator(torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)).item() == 0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_vanilla_equals_hand_computation(logits):
    real, fake = (tensor.numpy() for tensor in logits)
    expected = -0.5 * (np.log(sigmoid(real)).mean() + np.log(1 - sigmoid(fake)).mean())
    assert VanillaLoss().discriminator(*logits).item() == pytest.approx(expected, rel=1e-12)
    assert VanillaLoss().generator(logits[1]).item() == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-12)


@pytest.mark.parametrize("logit", [-300.0, 300.0])
def test_vanilla_has_a_gradient_however_sure_the_discriminator_is(logit):
    """Regression: MONAI's is cut off at -100, where the sigmoid is 0 in float32."""
    loss = VanillaLoss()
    fake = torch.tensor([-abs(logit)], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.generator(fake), fake)
    assert gradient.item() == pytest.approx(-1)
    wrong = torch.tensor([abs(logit)], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.discriminator(torch.tensor([400.0]), wrong), wrong)
    assert gradient.item() == pytest.approx(0.5)


def test_hinge_equals_hand_computation(logits):
    real, fake = (tensor.numpy() for tensor in logits)
    expected = 0.5 * (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())
    assert HingeLoss().discriminator(*logits).item() == pytest.approx(expected, rel=1e-12)
    assert HingeLoss().generator(logits[1]).item() == pytest.approx(-fake.mean(), rel=1e-12)


def test_hinge_stops_at_the_margin():
    """Regression: MONAI's tanh never reaches it, so that its gradient never ends."""
    real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
    loss = HingeLoss().discriminator(real, fake)
    assert loss.item() == 0
    assert [g.item() for g in torch.autograd.grad(loss, [real, fake])] == [0, 0]


@pytest.mark.parametrize("kind", [LeastSquaresLoss, VanillaLoss, HingeLoss])
def test_real_above_and_fake_below_the_boundary_cost_less_than_the_other_way_round(kind):
    loss = kind()
    above, below = (torch.full((1, 1, 2, 2), loss.boundary + offset) for offset in (0.4, -0.4))
    assert loss.discriminator(above, below) < loss.discriminator(below, above)
    assert loss.generator(above) < loss.generator(below)


@pytest.mark.parametrize(
    ("real", "fake", "share"), [((2, 2), (-1, -1), 1.0), ((-1, 2), (-1, 1), 0.5), ((-1, -1), (2, 2), 0.0)]
)
def test_accuracy(real, fake, share):
    assert discriminator_accuracy(torch.tensor(real), torch.tensor(fake), boundary=0.0).item() == share
