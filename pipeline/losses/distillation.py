"""Learning from a teacher: a larger trained network, or the average of the student's own weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ct_cncl.pipeline.networks import Branches, BranchOutputs
from ct_cncl.pipeline.networks.precision import autocast


class DistillationLoss:
    """Distance between the outputs of student and teacher for the same image, branch by branch (Hinton et al., 2015).

    The teacher runs in eval mode and without gradients. It may be the average of the student's weights (``EMA``), which
    changes with every step (Tarvainen and Valpola, NeurIPS 2017).

    Args:
        teacher: a network that takes the student's input.
        device: device of the images.
        content: weight of the distance between the two C(y).
        noise: weight of the distance between the two N(y).
        fused: weight of the distance between the two results.
        criterion: called as ``criterion(student, teacher)`` on network units, returns a scalar; None is L1.
        precision: precision of the teacher, on CUDA.

    Raises:
        ValueError: a weight is negative, or none is above zero.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        device: torch.device,
        content: float = 0.0,
        noise: float = 0.0,
        fused: float = 0.0,
        criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        precision: str = "fp32",
    ) -> None:
        self.weights = {"content": content, "noise": noise, "fused": fused}
        if min(self.weights.values()) < 0 or max(self.weights.values()) == 0:
            raise ValueError(f"Expected weights of at least 0, and one of them above 0, but got {self.weights}.")
        self.teacher = BranchOutputs(teacher.to(device)).eval()
        self.criterion = nn.L1Loss() if criterion is None else criterion
        self.precision = precision

    def __call__(self, predicted: Branches, image: torch.Tensor, _label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted terms by name; their sum is the loss.

        Args:
            predicted: the student's branches for ``image``, each (B, 1, H, W), network units.
            image: input of the generator, (B, C, H, W), network units.

        Returns:
            Scalars ``distil_<branch>`` for the branches whose weight is above 0.
        """
        with torch.no_grad(), autocast(image.device, self.precision):
            taught = self.teacher(image)
        return {
            f"distil_{name}": weight * self.criterion(getattr(predicted, name), getattr(taught, name).float())
            for name, weight in self.weights.items()
            if weight > 0
        }
