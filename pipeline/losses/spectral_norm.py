"""A PatchGAN discriminator whose layers cannot amplify: spectral normalisation."""

from __future__ import annotations

from typing import Any

from monai.networks.nets import PatchDiscriminator
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class SpectralPatchDiscriminator(PatchDiscriminator):
    """MONAI's ``PatchDiscriminator``, every convolution's weight divided by its largest singular value.

    That bounds how fast the logits change with the image, and so the gradient that reaches the generator (Miyato et al.,
    ICLR 2018). The singular vectors are buffers, one step of power iteration a forward in training; checkpoints hold them.

    Args:
        options: of ``PatchDiscriminator``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for module in list(self.modules()):
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                spectral_norm(module)
