import copy

import pytest
import torch
from torch import nn

from ct_cncl.pipeline.losses import DistillationLoss
from ct_cncl.pipeline.networks import CNCL, Branches, ConvFusion, UNet

CPU = torch.device("cpu")


def network(seed=0):
    torch.manual_seed(seed)
    return CNCL(content=UNet(width=4, depth=1), noise=UNet(width=4, depth=1), fusion=ConvFusion())


def image():
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_equals_hand_computation():
    student, teacher = network(0).branches(image()), network(1).eval()
    terms = DistillationLoss(copy.deepcopy(teacher), device=CPU, content=2, noise=3, fused=5)(student, image(), image())
    taught = teacher.branches(image())
    expected = {
        f"distil_{name}": weight * (getattr(student, name) - getattr(taught, name)).abs().mean().item()
        for name, weight in (("content", 2), ("noise", 3), ("fused", 5))
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


def test_other_criterion_and_branches_without_weight():
    student, teacher = network(0).branches(image()), network(1).eval()
    loss = DistillationLoss(teacher, device=CPU, fused=5, criterion=nn.MSELoss())
    terms = loss(student, image(), image())
    expected = 5 * ((student.fused - teacher.branches(image()).fused) ** 2).mean().item()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"distil_fused": expected}, rel=1e-5)


def test_the_teacher_is_in_eval_mode_and_left_alone():
    """Its BatchNorm has running statistics, which a forward in train mode would change."""
    teacher = network(1).train()
    before = copy.deepcopy(teacher.state_dict())
    student = network(0)
    terms = DistillationLoss(teacher, device=CPU, fused=1)(student.branches(image()), image(), image())
    sum(terms.values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_a_student_like_its_teacher_costs_nothing():
    teacher = network(1).eval()
    terms = DistillationLoss(teacher, device=CPU, content=1, noise=1, fused=1)(
        teacher.branches(image()), image(), image()
    )
    assert [term.item() for term in terms.values()] == [0, 0, 0]


def test_a_teacher_with_one_output_teaches_the_result():
    teacher = nn.Conv2d(1, 1, 1)
    own = Branches(*(torch.zeros(2, 1, 8, 8) for _ in range(3)))
    terms = DistillationLoss(teacher, device=CPU, fused=1)(own, image(), image())
    assert terms["distil_fused"].item() == pytest.approx(teacher(image()).abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize("weights", [{}, {"fused": -1.0}])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="weights of at least 0"):
        DistillationLoss(network(), device=CPU, **weights)
