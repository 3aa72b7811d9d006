"""The supervised part of CNCL's loss: one pixel loss per branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ct_cncl.pipeline.networks import Branches


class BranchLoss(nn.Module):
    """Weighted pixel losses of content, noise and fused image.

    The paper's code supervises the fused image and the noise with L1 and weight 100 each and leaves C(y) free; behind a
    free 1x1 fusion C(y) may then have any scale. The default here gives the content a weight of its own.

    Args:
        content: weight of the loss between C(y) and the truth x.
        noise: weight of the loss between N(y) and the true noise y - x.
        fused: weight of the loss between the result and x.
        criterion: called as ``criterion(prediction, target)`` on network units; L1 where not given.

    Raises:
        ValueError: a negative weight, or none above zero.
    """

    def __init__(
        self,
        *,
        content: float = 100.0,
        noise: float = 100.0,
        fused: float = 100.0,
        criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.weights = {"content": content, "noise": noise, "fused": fused}
        if min(self.weights.values()) < 0 or max(self.weights.values()) == 0:
            raise ValueError(f"Expected weights of at least 0, one of them above 0, but got {self.weights}.")
        self.criterion = nn.L1Loss() if criterion is None else criterion

    def forward(self, predicted: Branches, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted terms by branch; their sum is the pixel loss.

        Args:
            predicted: branches for ``image``, each (B, 1, H, W), network units.
            image: low-dose image y, (B, 1, H, W).
            label: normal-dose image x, (B, 1, H, W).

        Returns:
            Scalars for the branches whose weight is above 0.
        """
        pairs = {
            "content": (predicted.content, label),
            "noise": (predicted.noise, image - label),
            "fused": (predicted.fused, label),
        }
        return {name: self.weights[name] * self.criterion(*pairs[name]) for name in pairs if self.weights[name] > 0}
