"""The adversarial part of CNCL's loss."""

from __future__ import annotations

import torch
from monai.losses import PatchAdversarialLoss
from torch import nn


class LeastSquaresLoss(nn.Module):
    """Least-squares GAN on the logits of a PatchGAN discriminator (Mao et al., ICCV 2017).

    MONAI's ``PatchAdversarialLoss`` on raw logits: its default would put a leaky ReLU before the squares.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def generator(self, fake: torch.Tensor) -> torch.Tensor:
        """mean((fake - 1)^2): small where the discriminator takes the fake for real."""
        return self.loss(fake, target_is_real=True, for_discriminator=False)

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """0.5 * [mean((real - 1)^2) + mean(fake^2)]."""
        real_loss = self.loss(real, target_is_real=True, for_discriminator=True)
        return 0.5 * (real_loss + self.loss(fake, target_is_real=False, for_discriminator=True))
