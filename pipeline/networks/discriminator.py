"""Inputs of the discriminator: how its view of an image is prepared."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.ends import LEVEL


class Amplified(nn.Module):
    """A discriminator whose input is amplified about 0 HU, so that noise is not tiny compared with the image's level.

    In network units, 10 HU of noise are 0.0025 on a level of 0.25. A discriminator learns about such noise slowly, and in
    bfloat16, which has steps of 8 HU there, not at all. The wrapper adds no parameters.

    Args:
        discriminator: network for (B, 3, H, W): result or reference, removed noise, low-dose image.
        gain: factor on the input; with 16, +-200 HU become +-0.8.

    Raises:
        ValueError: ``gain`` is not positive.
    """

    def __init__(self, discriminator: nn.Module, *, gain: float) -> None:
        super().__init__()
        if not gain > 0:
            raise ValueError(f"Expected a positive gain, but got {gain}.")
        self.discriminator = discriminator
        self.gain = gain

    def forward(self, triple: torch.Tensor) -> list[torch.Tensor]:
        """The discriminator's outputs for (B, 3, H, W) in network units; the second channel is noise, around 0."""
        level = torch.tensor([LEVEL, 0.0, LEVEL], dtype=triple.dtype, device=triple.device).view(1, 3, 1, 1)
        return self.discriminator(self.gain * (triple - level))


class Relative(nn.Module):
    """A discriminator that sees the removed noise in place of the result: (y - result, N(y), y), amplified.

    This is a linear change of the same triple, but real and generated triples differ by noise of about 10 HU, and in this
    form edges of 1000 HU no longer hide it. On patches of chest and abdomen, with a fixed generator, the discriminator's
    accuracy after 500 steps is 0.91; with the original triple it stays at 0.50, amplified or not.

    Args:
        discriminator: network for (B, 3, H, W).
        noise_gain: factor on the first two channels; with 128, 10 HU of noise become 0.3.
        gain: factor on the low-dose image, about 0 HU.

    Raises:
        ValueError: a gain is not positive.
    """

    def __init__(self, discriminator: nn.Module, *, noise_gain: float = 128.0, gain: float = 16.0) -> None:
        super().__init__()
        if not (noise_gain > 0 and gain > 0):
            raise ValueError(f"Expected positive gains, but got {noise_gain} and {gain}.")
        self.discriminator = discriminator
        self.noise_gain = noise_gain
        self.gain = gain

    def forward(self, triple: torch.Tensor) -> list[torch.Tensor]:
        """What the discriminator returns for result or reference, removed noise and low-dose image, (B, 3, H, W), network units."""
        result, noise, image = triple.chunk(3, dim=1)
        removed = self.noise_gain * torch.cat([image - result, noise], dim=1)
        return self.discriminator(torch.cat([removed, self.gain * (image - LEVEL)], dim=1))


class Detail(nn.Module):
    """A discriminator that sees the detail of each image: the difference from its local mean, amplified.

    The level and texture of the noise are the clearest difference between a smoothed result and a scan: with pixel losses, the
    result has a quarter of the reference's noise power. Level and organs are removed, since result and reference share them.
    Instance normalisation would also remove the noise level, so use a discriminator without it, or with spectral normalisation.

    Args:
        discriminator: network for (B, 3, H, W).
        gain: factor on all three channels; with 128, 10 HU of noise become 0.3.
        size: side in pixels of the square of the local mean, odd.
        limit: amplified detail is limited softly to +-limit (limit * tanh), so that edges do not outweigh noise.
        judge_noise: False shows the discriminator zeros in place of N(y). With pixel losses, a noise predictor gives the mean
            of the noise, always weaker than real noise; an adversary that sees it drives N(y), and with it the result, in the
            wrong direction.

    Raises:
        ValueError: ``gain`` or ``limit`` is not positive, or ``size`` is even or below 3.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        *,
        gain: float = 128.0,
        size: int = 7,
        limit: float = 2.0,
        judge_noise: bool = True,
    ) -> None:
        super().__init__()
        if not (gain > 0 and limit > 0):
            raise ValueError(f"Expected a positive gain and limit, but got {gain} and {limit}.")
        if size < 3 or size % 2 == 0:
            raise ValueError(f"Expected an odd size of at least 3 pixels, but got {size}.")
        self.discriminator = discriminator
        self.gain = gain
        self.size = size
        self.limit = limit
        self.judge_noise = judge_noise

    def forward(self, triple: torch.Tensor) -> list[torch.Tensor]:
        """What the discriminator returns for result or reference, removed noise and low-dose image, (B, 3, H, W), network units."""
        mean = functional.avg_pool2d(triple, self.size, stride=1, padding=self.size // 2, count_include_pad=False)
        detail = triple - mean
        if not self.judge_noise:
            detail = detail * detail.new_tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)
        return self.discriminator(self.limit * torch.tanh(self.gain / self.limit * detail))
