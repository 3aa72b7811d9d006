"""What the discriminator sees of an image."""

from __future__ import annotations

import torch
from torch import nn

from ct_cncl.pipeline.networks.ends import LEVEL


class Amplified(nn.Module):
    """A discriminator whose input is amplified about 0 HU, so that noise is not tiny beside the image's level.

    In network units 10 HU of noise are 0.0025 on a level of 0.25: a discriminator then learns about noise slowly, and in
    bfloat16, whose steps are 8 HU there, not at all.

    Args:
        discriminator: of (B, 3, H, W): result or truth, removed noise, low-dose image. Has no parameters but its own.
        gain: 16 makes a soft-tissue window of +-200 HU +-0.8.

    Raises:
        ValueError: a gain that is not positive.
    """

    def __init__(self, discriminator: nn.Module, *, gain: float) -> None:
        super().__init__()
        if not gain > 0:
            raise ValueError(f"Expected a positive gain, but got {gain}.")
        self.discriminator = discriminator
        self.gain = gain

    def forward(self, triple: torch.Tensor) -> list[torch.Tensor]:
        """What the discriminator returns for (B, 3, H, W) in network units; the second channel is noise, around 0."""
        level = torch.tensor([LEVEL, 0.0, LEVEL], dtype=triple.dtype, device=triple.device).view(1, 3, 1, 1)
        return self.discriminator(self.gain * (triple - level))
