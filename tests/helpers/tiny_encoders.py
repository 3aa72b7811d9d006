"""Encoders with random weights, in the formats of the real ones, and a harmful one."""

import torch

from ct_cncl.pipeline.losses.encoders.ct import CTStages

WIDTHS = [4, 6]


def vgg_state(seed=0, scale=0.1):
    """torchvision's state dict of VGG-19 with random convolutions and a shortened classifier."""
    generator = torch.Generator().manual_seed(seed)
    state, channels, index = {}, 3, 0
    for width, count in zip((64, 128, 256, 512, 512), (2, 2, 4, 4, 4)):
        for _ in range(count):
            deviation = (2 / (9 * channels)) ** 0.5
            state[f"features.{index}.weight"] = deviation * torch.randn(width, channels, 3, 3, generator=generator)
            state[f"features.{index}.bias"] = scale * torch.randn(width, generator=generator)
            channels, index = width, index + 2
        index += 1
    return state | {"classifier.6.bias": torch.zeros(1000)}


def ct_checkpoint(path, seed=0, widths=WIDTHS):
    """A ``best.pt`` with random weights, like that of a run with `--with ct_encoder`."""
    from ct_cncl.pipeline.losses.encoders.ct import CTAutoencoder

    torch.manual_seed(seed)
    torch.save({"network_def": CTAutoencoder(widths=widths, code=3).state_dict(), "epoch": 1, "score": 0.0}, path)
    return path


class HostileEncoder(CTStages):
    """Sees the reference 400 HU too bright: whatever scores well in its features is wrong in every pixel."""

    def __init__(self, **_):
        super().__init__([1])

    def forward(self, image, layers):
        """One feature, the brightness; in units of 25 HU it outweighs the pixels. Targets come without gradients."""
        return [(image if torch.is_grad_enabled() else image + 0.1) for _ in layers]
