import numpy as np
import pytest
import torch
from torch import nn

from ct_cncl.pipeline.losses import BranchLoss, Charbonnier, charbonnier
from ct_cncl.pipeline.networks import Branches

SHAPE = (2, 1, 5, 4)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(5)]


def test_equals_hand_computation(tensors):
    content, noise, fused, image, label = tensors
    terms = BranchLoss(content=3, noise=50, fused=100)(Branches(content, noise, fused), image, label)
    c, n, f, y, x = (t.numpy() for t in tensors)
    expected = {
        "content": 3 * np.abs(c - x).mean(),
        "noise": 50 * np.abs(n - (y - x)).mean(),
        "fused": 100 * np.abs(f - x).mean(),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-13)


def test_other_criterion(tensors):
    content, noise, fused, image, label = tensors
    terms = BranchLoss(noise=2, criterion=nn.MSELoss())(Branches(content, noise, fused), image, label)
    assert terms["noise"].item() == pytest.approx(2 * ((noise - image + label) ** 2).mean().item(), rel=1e-13)


def test_perfect_prediction_costs_nothing(tensors):
    *_, image, label = tensors
    terms = BranchLoss()(Branches(label, image - label, label), image, label)
    assert [term.item() for term in terms.values()] == [0, 0, 0]


@pytest.mark.parametrize("left_out", ["content", "noise", "fused"])
def test_weight_zero_leaves_the_branch_out(left_out, tensors):
    content, noise, fused, image, label = tensors
    terms = BranchLoss(**{left_out: 0})(Branches(content, noise, fused), image, label)
    assert set(terms) == {"content", "noise", "fused"} - {left_out}


@pytest.mark.parametrize("weights", [{"content": -1}, {"content": 0, "noise": 0, "fused": 0}, {"noise": -1e-9}])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="weights of at least 0"):
        BranchLoss(**weights)


def test_charbonnier_equals_hand_computation(tensors):
    content, noise, fused, image, label = tensors
    criterion = Charbonnier(epsilon=0.3)
    terms = BranchLoss(content=2, noise=0, fused=5, criterion=criterion)(Branches(content, noise, fused), image, label)
    c, _, f, _, x = (t.numpy() for t in tensors)
    for name, weight, prediction in (("content", 2, c), ("fused", 5, f)):
        expected = weight * (np.sqrt((prediction - x) ** 2 + 0.09) - 0.3).mean()
        assert terms[name].item() == pytest.approx(expected, rel=1e-12)


def test_charbonnier_is_a_parabola_near_zero_and_the_distance_far_away():
    near, far = torch.tensor(1e-3, dtype=torch.float64), torch.tensor(1e3, dtype=torch.float64)
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert charbonnier(near, zero, epsilon=1.0).item() == pytest.approx(near.item() ** 2 / 2, rel=1e-5)
    assert charbonnier(far, zero, epsilon=1.0).item() == pytest.approx(far.item() - 1, abs=1e-3)


def test_charbonnier_has_a_gradient_of_zero_at_zero():
    x = torch.zeros(1, requires_grad=True)
    charbonnier(x, torch.zeros(1), epsilon=1e-3).sum().backward()
    assert x.grad.item() == 0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_charbonnier_needs_a_positive_epsilon(epsilon):
    with pytest.raises(ValueError, match="positive epsilon"):
        Charbonnier(epsilon=epsilon)


@pytest.mark.parametrize(
    ("criterion", "error"),
    [
        (None, np.abs),
        (nn.MSELoss(reduction="none"), np.square),
        (Charbonnier(epsilon=1.0), lambda d: np.sqrt(d**2 + 1) - 1),
    ],
)
def test_pixel_weights_equal_hand_computation(tensors, criterion, error):
    content, noise, fused, image, label = tensors
    weight = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = BranchLoss(content=1, noise=2, fused=3, criterion=criterion)
    terms = loss(Branches(content, noise, fused), image, label, weight=weight)
    c, n, f, y, x = (t.numpy() for t in tensors)
    expected = {
        "content": (weight.numpy() * error(c - x)).mean(),
        "noise": 2 * (weight.numpy() * error(n - (y - x))).mean(),
        "fused": 3 * (weight.numpy() * error(f - x)).mean(),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)


def test_two_halves_of_a_batch_average_to_the_whole_with_weights(tensors):
    """As several processes do: a mean over the weights would not."""
    content, noise, fused, image, label = tensors
    weight = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = BranchLoss(content=1, noise=0, fused=0)

    def term(chosen):
        return loss(
            Branches(content[chosen], noise[chosen], fused[chosen]), image[chosen], label[chosen], weight[chosen]
        )["content"].item()

    assert (term(slice(0, 1)) + term(slice(1, 2))) / 2 == pytest.approx(term(slice(0, 2)), rel=1e-12)


def test_pixel_weights_need_errors_of_pixels(tensors):
    content, noise, fused, image, label = tensors
    with pytest.raises(ValueError, match='reduction="none"'):
        BranchLoss(criterion=nn.MSELoss())(Branches(content, noise, fused), image, label, weight=torch.ones(SHAPE))


def test_supervised_branches_are_those_with_a_weight():
    assert BranchLoss(content=0, noise=1, fused=2).supervised == ["noise", "fused"]


def test_relative_loss_is_the_share_of_each_inputs_error_that_is_left():
    label = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    noise = torch.tensor([0.01, 0.001, 1e-5], dtype=torch.float64).view(3, 1, 1, 1) * torch.randn_like(label).sign()
    left = torch.tensor([0.5, 0.25, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    branches = Branches(content=label + left * noise, noise=noise * (1 - left), fused=label + left * noise)
    terms = BranchLoss(content=0.0, noise=1.0, fused=2.0, relative=True)(branches, label + noise, label)
    shares = np.mean([0.5, 0.25, 0.5 * 1e-5 / (2 / 4096)])  # the last has less noise than the floor of 2 HU
    assert terms["fused"].item() == pytest.approx(2 * shares)
    assert terms["noise"].item() == pytest.approx(shares)
    squares = BranchLoss(content=0.0, noise=0.0, fused=1.0, relative=True, criterion=nn.MSELoss(reduction="none"))
    power = np.mean([0.25, 0.0625, (0.5 * 1e-5 / (2 / 4096)) ** 2])  # likewise, of squares
    assert squares(branches, label + noise, label)["fused"].item() == pytest.approx(power)
    weight = torch.full_like(label, 0.5)
    halved = BranchLoss(content=0.0, noise=1.0, fused=2.0, relative=True)(branches, label + noise, label, weight)
    assert halved["fused"].item() == pytest.approx(shares)
