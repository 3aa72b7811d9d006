"""An encoder trained on CT alone, and the autoencoder that trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import NETWORK_KEY, load_file
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.losses.encoders.stages import ConvStages
from ct_cncl.pipeline.networks.branches import pad_to_multiple
from ct_cncl.transforms.common.hu import HU_OFFSET, HU_RANGE, to_hu

UNIT_HU = 500.0
"""HU in one unit of the encoder: water is 0, air -2, dense bone about 3."""
WIDTHS = (32, 64, 96, 128)


class CTStages(ConvStages):
    """Four blocks of two convolutions on HU / 500; 0.5 M weights at full width.

    Args:
        widths: channels of each block.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(widths, (2,) * len(widths), in_channels=1)

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Convert (B, 1, H, W), network units, to HU / 500. Nothing is clipped."""
        return to_hu(image) / UNIT_HU


class CTAutoencoder(nn.Module):
    """The autoencoder that trains the CT encoder: its code must hold enough for a decoder to reconstruct the patch.

    It is trained on normal-dose CT alone, without labels, like the perceptual encoder of SACNN (Li et al., IEEE TMI 39(7),
    2020). There are no skip connections; the code has ``code`` channels for each 8 x 8 pixels.

    Args:
        widths: channels of each block.
        code: channels between encoder and decoder; with fewer, the encoder must select what matters.
    """

    def __init__(self, *, widths: Sequence[int] = WIDTHS, code: int = 32) -> None:
        super().__init__()
        self.encoder = CTStages(widths)
        self.deepest = f"relu{len(widths)}_2"
        self.multiple = 2 ** (len(widths) - 1)
        self.code = nn.Conv2d(self.encoder.channels, code, 1)
        layers: list[nn.Module] = []
        channels = code
        for number, width in enumerate(reversed(widths)):
            if number:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Reconstruct ``image`` (B, 1, H, W), network units, from its code; any H and W."""
        height, width = image.shape[-2:]
        (features,) = self.encoder(pad_to_multiple(image, self.multiple), [self.deepest])
        drawn = self.decoder(self.code(features))
        return ((UNIT_HU * drawn + HU_OFFSET) / HU_RANGE)[..., :height, :width]


class CTEncoder(CTStages):
    """The trained CT encoder.

    Args:
        weights: ``best.pt`` of a run with ``--with ct_encoder``, or the copy of it that the bundle ships.
        widths: channels of each block, as in training.

    Raises:
        CheckpointError: the file is missing, unreadable or of another network; the message says how to get one.
    """

    def __init__(self, *, weights: str | Path, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(widths)
        path = Path(weights)
        if not path.is_file():
            raise CheckpointError(
                f"Expected the CT encoder's weights in {path}, but there is no such file. Train the encoder (--with ct_encoder) and "
                "name its best.pt with texture.encoder.weights=FILE, or use VGG-19 (--with encoder_vgg)."
            )
        content = load_file(path)
        state = {
            name.removeprefix("encoder."): value
            for name, value in content.get(NETWORK_KEY, content).items()
            if name.startswith("encoder.")
        }
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"Expected {path} to hold a CT encoder of widths {list(widths)}, but it does not fit: "
                f"{' '.join(str(error).split())[:200]}. Name the best.pt of a run with --with ct_encoder."
            ) from error
