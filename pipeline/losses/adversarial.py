"""The adversarial part of CNCL's loss, on the raw logits of a PatchGAN discriminator.

Each loss is a module with ``generator(fake)``, ``discriminator(real, fake)`` and ``boundary``, the logit above which the
discriminator takes an image for real. In all of them, the discriminator's loss is the mean over real and fake images, so
that one learning rate suits all.
"""

from __future__ import annotations

import torch
from monai.losses import PatchAdversarialLoss
from torch import nn
from torch.nn import functional


class LeastSquaresLoss(nn.Module):
    """Least-squares GAN on the logits of a PatchGAN discriminator (Mao et al., ICCV 2017).

    It is MONAI's ``PatchAdversarialLoss`` on raw logits; MONAI's default applies a leaky ReLU before squaring.
    """

    boundary = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def generator(self, fake: torch.Tensor) -> torch.Tensor:
        """mean((fake - 1)^2): small if the discriminator takes the fake for real."""
        return self.loss(fake, target_is_real=True, for_discriminator=False)

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """0.5 * [mean((real - 1)^2) + mean(fake^2)]."""
        real_loss = self.loss(real, target_is_real=True, for_discriminator=True)
        return 0.5 * (real_loss + self.loss(fake, target_is_real=False, for_discriminator=True))


class VanillaLoss(nn.Module):
    """Cross-entropy of the original GAN, in its non-saturating form (Goodfellow et al., NeurIPS 2014, sec. 3).

    It is computed from logits. MONAI's takes the logarithm of a sigmoid, which is clipped at -100 and has no gradient beyond.
    """

    boundary = 0.0

    def generator(self, fake: torch.Tensor) -> torch.Tensor:
        """-mean(log sigmoid(fake))."""
        return functional.softplus(-fake).mean()

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """-0.5 * [mean(log sigmoid(real)) + mean(log(1 - sigmoid(fake)))]."""
        return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())


class HingeLoss(nn.Module):
    """Hinge GAN (Lim and Ye, 2017, arXiv 1705.02894).

    It is computed from logits. MONAI's applies tanh first, so that no logit ever reaches the margin.
    """

    boundary = 0.0

    def generator(self, fake: torch.Tensor) -> torch.Tensor:
        """-mean(fake)."""
        return -fake.mean()

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """0.5 * [mean(max(0, 1 - real)) + mean(max(0, 1 + fake))]."""
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


def discriminator_accuracy(real: torch.Tensor, fake: torch.Tensor, *, boundary: float) -> torch.Tensor:
    """The discriminator's accuracy: fraction of logits on the correct side of ``boundary``, averaged over real and fake.

    Args:
        real: logits of real images, any shape.
        fake: logits of fakes, any shape.
        boundary: the attribute of the loss that trains the discriminator.

    Returns:
        Scalar, 0 to 1; 0.5 is guessing.

    >>> discriminator_accuracy(torch.tensor([0.9, 0.8]), torch.tensor([0.7, 0.1]), boundary=0.5).item()
    0.75
    """
    return 0.5 * ((real > boundary).float().mean() + (fake < boundary).float().mean())
