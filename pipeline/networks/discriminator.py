"""What the discriminator sees of an image."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.ends import LEVEL


class Amplified(nn.Module):
    """A discriminator whose input is amplified about 0 HU, so that noise is not tiny compared with the image's level.

    In network units 10 HU of noise are 0.0025 on a level of 0.25: a discriminator then learns about noise slowly, and in
    bfloat16, whose steps are 8 HU there, not at all.

    Args:
        discriminator: of (B, 3, H, W): result or reference, removed noise, low-dose image. Has no parameters but its own.
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


class Relative(nn.Module):
    """A discriminator that sees the noise that was removed in the place of the result: (y - result, N(y), y), amplified.

    The same triple, changed linearly: what is real or not about it is noise of 10 HU, beside which edges of 1000 HU are not in
    the way any longer. On patches of chest and abdomen, with a generator that stands still, its accuracy after 500 steps
    is 0.91, where the triple itself leaves it at 0.50, amplified or not.

    Args:
        discriminator: of (B, 3, H, W).
        noise_gain: of the first two channels; with 128, 10 HU of noise are 0.3.
        gain: of the low-dose image, about 0 HU.

    Raises:
        ValueError: a gain that is not positive.
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
    """A discriminator that sees the detail of result or reference: its difference from its own local mean, amplified.

    How much noise an image has, and of which grain, is the plainest difference between a smoothed result and a scan: in the
    result of pixel losses a quarter of the reference's power. Level and organs are taken out of both images, as they are the
    same in result and reference. Instance normalisation would take the noise's strength out, too: use none, or spectral norm.

    Args:
        discriminator: of (B, 3, H, W).
        gain: of all three channels; with 128, 10 HU of noise are 0.3.
        size: side of the local mean's square in pixels, odd.
        limit: amplified detail is held within +-limit, softly (limit * tanh), so that edges do not outvote noise.
        judge_noise: False hides N(y) from the discriminator, which sees zeros in its place. A predictor of noise under pixel
            losses gives its mean, always weaker than real noise; an adversary that sees it drives N(y), and with it the
            result, the wrong way.

    Raises:
        ValueError: a gain or limit that is not positive, a size below 3 or even.
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
