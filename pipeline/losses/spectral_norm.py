"""A PatchGAN discriminator with spectral normalisation, whose convolutions do not amplify."""

from __future__ import annotations

from typing import Any

from monai.networks.nets import PatchDiscriminator
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class SpectralPatchDiscriminator(PatchDiscriminator):
    """MONAI's ``PatchDiscriminator`` with the weight of every convolution divided by its largest singular value.

    This bounds how fast the logits change with the image, and so the gradient that reaches the generator (Miyato et al.,
    ICLR 2018). The singular vectors are buffers, which checkpoints hold; each forward pass in training takes one step of power
    iteration.

    Args:
        options: options of ``PatchDiscriminator``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for module in list(self.modules()):
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                spectral_norm(module)
