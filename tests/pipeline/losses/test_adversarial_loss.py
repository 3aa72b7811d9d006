import pytest
import torch

from ct_cncl.pipeline.losses import LeastSquaresLoss


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
