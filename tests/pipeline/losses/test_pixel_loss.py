import numpy as np
import pytest
import torch
from torch import nn

from ct_cncl.pipeline.losses import BranchLoss
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
