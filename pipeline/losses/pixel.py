"""The supervised part of CNCL's loss: one pixel loss per branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ct_cncl.pipeline.networks import Branches


def charbonnier(prediction: torch.Tensor, target: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    """``sqrt(d^2 + epsilon^2) - epsilon`` of each difference d: quadratic below ``epsilon``, linear above.

    Args:
        prediction: any shape.
        target: the same shape.
        epsilon: difference at which it changes from quadratic to linear, in the images' unit, above 0.

    Returns:
        The same shape; 0 for equal values.

    Source: Charbonnier et al., ICIP 1994.

    >>> charbonnier(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.0]), epsilon=4.0).tolist()
    [1.0, 0.0]
    """
    return torch.sqrt((prediction - target) ** 2 + epsilon**2) - epsilon


class Charbonnier(nn.Module):
    """:func:`charbonnier`, pixel by pixel, as a criterion for ``BranchLoss``.

    Args:
        epsilon: see :func:`charbonnier`, in network units; 0.001 is 4 HU.

    Raises:
        ValueError: ``epsilon`` is not positive.
    """

    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"Expected a positive epsilon, but got {epsilon}.")
        self.epsilon = epsilon

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Error of each pixel of ``prediction`` against ``target``, two tensors of any one shape."""
        return charbonnier(prediction, target, epsilon=self.epsilon)


_FLOOR = 2.0 / 4096
"""Mean error of 2 HU: a smaller one, as in an image of air alone, does not raise the weight of an image any further."""


class BranchLoss(nn.Module):
    """Weighted pixel losses of content, noise and fused image.

    The paper's code supervises the fused image and the noise with L1, each with weight 100, and does not supervise C(y).
    Before a 1x1 fusion, C(y) may then have any scale. The default here therefore supervises the content as well.

    Args:
        content: weight of the loss between C(y) and the reference x.
        noise: weight of the loss between N(y) and the true noise y - x.
        fused: weight of the loss between the result and x.
        criterion: called as ``criterion(prediction, target)`` on network units, returns the error of each pixel (or their
            mean, if pixels have no weights); None is L1.
        relative: divide the errors of each image by the mean error of its input, ``mean criterion(y, x)`` (at least that of
            :data:`_FLOOR`), which gives the fraction of the input's error that is left. Otherwise an image with 60 HU of
            noise counts as much as ten with 6 HU. A weight of 1 then corresponds to about 250 without this option.

    Raises:
        ValueError: a weight is negative, or none is above zero.
    """

    def __init__(
        self,
        *,
        content: float = 100.0,
        noise: float = 100.0,
        fused: float = 100.0,
        criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.relative = relative
        self.weights = {"content": content, "noise": noise, "fused": fused}
        if min(self.weights.values()) < 0 or max(self.weights.values()) == 0:
            raise ValueError(f"Expected weights of at least 0, and one of them above 0, but got {self.weights}.")
        self.criterion = nn.L1Loss(reduction="none") if criterion is None else criterion

    @property
    def supervised(self) -> list[str]:
        """The branches whose weight is above 0."""
        return [name for name, weight in self.weights.items() if weight > 0]

    def forward(
        self, predicted: Branches, image: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Weighted terms by branch; their sum is the pixel loss.

        Args:
            predicted: branches for ``image``, each (B, 1, H, W), network units.
            image: low-dose image y, (B, 1, H, W), network units.
            label: reference image x, (B, 1, H, W), network units.
            weight: weight of each pixel, (B, 1, H, W); None weighs all alike. The sum is divided by the number of pixels, not
                by the sum of the weights: a patch that is mostly air counts less, and the average over several processes is
                what one process computes.

        Returns:
            Scalars for the branches whose weight is above 0.

        Raises:
            ValueError: with pixel weights or ``relative``, the criterion does not return the error of each pixel.
        """
        if self.relative:
            share = 1 / self._input_error(image, label)
            weight = share if weight is None else share * weight
        pairs = {
            "content": (predicted.content, label),
            "noise": (predicted.noise, image - label),
            "fused": (predicted.fused, label),
        }
        return {name: self.weights[name] * self._mean(*pairs[name], weight) for name in self.supervised}

    def _input_error(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean error of each input, (B, 1, 1, 1), at least that of an error of ``_FLOOR`` in every pixel."""
        least = self.criterion(image.new_full((1,), _FLOOR), image.new_zeros(1))
        each = self.criterion(image, label)
        _check_pixels(each, image)
        return torch.maximum(each.mean(dim=(1, 2, 3), keepdim=True), least)

    def _mean(self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        error = self.criterion(prediction, target)
        if weight is None:
            return error.mean()
        _check_pixels(error, prediction)
        return (weight * error).mean()


def _check_pixels(error: torch.Tensor, prediction: torch.Tensor) -> None:
    if error.shape != prediction.shape:
        raise ValueError(
            f"Expected a criterion that returns the error of each pixel, {tuple(prediction.shape)}, but got shape "
            f'{tuple(error.shape)}. Give it reduction="none".'
        )
