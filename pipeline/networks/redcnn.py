"""RED-CNN (Chen et al., IEEE TMI 36(12), 2017), the network that the field most often compares with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.branches import centre_slice, pad_to_multiple
from ct_cncl.pipeline.networks.ends import ImageConv2d


class REDCNN(nn.Module):
    """Five 5x5 convolutions and five 5x5 transposed ones, 96 channels, without padding, with three shortcuts.

    The outputs of the second and fourth convolution are added after the third and first transposed one, and the input after
    the last. The paper's ReLU after that is left out here: it would cut off everything below -1024 HU. 1.85 million parameters.

    Args:
        width: number of channels.
        in_channels: slices of the input, odd.
        zero_start: start with the input as the output.
    """

    def __init__(self, *, width: int = 96, in_channels: int = 1, zero_start: bool = False) -> None:
        super().__init__()
        self.shortest = 21  # smallest side that five unpadded convolutions accept; smaller images are padded
        self.encoder = nn.ModuleList([ImageConv2d(in_channels, width, 5)])
        self.encoder.extend(nn.Conv2d(width, width, 5) for _ in range(4))
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(width, width, 5) for _ in range(4))
        self.last = nn.ConvTranspose2d(width, 1, 5)
        if zero_start:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``image`` (B, slices, H, W) in network units to (B, 1, H, W); any H and W."""
        height, width = image.shape[-2:]
        if min(height, width) < self.shortest:
            image = pad_to_multiple(image, self.shortest)
        x = image
        shortcuts: list[torch.Tensor] = []
        for number, layer in enumerate(self.encoder):
            x = functional.relu(layer(x))
            if number % 2 == 1:
                shortcuts.append(x)
        for number, layer in enumerate(self.decoder):
            x = layer(x)
            if number % 2 == 0:
                x = x + shortcuts.pop()
            x = functional.relu(x)
        x = self.last(x) + centre_slice(image)
        return x[..., :height, :width]
