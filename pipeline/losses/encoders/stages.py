"""Blocks of 3x3 convolutions with pooling in between, whose feature maps have names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class ConvStages(nn.Module):
    """Blocks of several convolutions with ReLU, with 2x2 max pooling between the blocks: the layout of VGG.

    ``features`` has the indices of torchvision's VGG. Layers are named as in the literature: ``conv3_2`` is the output of
    the second convolution of the third block before its activation, ``relu3_2`` the one after it. In block k, a feature
    represents 2^(k-1) x 2^(k-1) pixels.

    Borders are padded with their own values, not with zeros. A patch ends within the body; a step from there to 0 (water, or
    mid-grey) would outweigh all noise in the features along the border, so that textures would depend on the patch's size.

    Args:
        widths: channels of each block.
        convolutions: number of convolutions in each block.
        in_channels: channels of the image.
    """

    def __init__(self, widths: Sequence[int], convolutions: Sequence[int], *, in_channels: int) -> None:
        super().__init__()
        self.layers: dict[str, int] = {}
        modules: list[nn.Module] = []
        channels = in_channels
        for block, (width, count) in enumerate(zip(widths, convolutions, strict=True), start=1):
            if block > 1:
                modules.append(nn.MaxPool2d(2))
            for number in range(1, count + 1):
                self.layers[f"conv{block}_{number}"] = len(modules)
                modules.append(nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate"))
                self.layers[f"relu{block}_{number}"] = len(modules)
                # Not in place: it would overwrite the features before the activation.
                modules.append(nn.ReLU(inplace=False))
                channels = width
        self.features = nn.Sequential(*modules)
        self.channels = channels

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Convert network units (B, 1, H, W) to the input of the first convolution."""
        raise NotImplementedError

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse unknown names of layers.

        Raises:
            ValueError: a name is unknown, or there is none; the message lists the unknown ones.
        """
        unknown = [name for name in layers if name not in self.layers]
        if unknown or not layers:
            raise ValueError(
                f"Expected layers out of {', '.join(self.layers)}, but got {', '.join(unknown) or 'none'}. Choose at least one."
            )

    def pixels(self, layer: str) -> int:
        """Side in pixels of the block that a feature of ``layer`` represents.

        Raises:
            ValueError: the name is unknown.
        """
        self.check_layers([layer])
        return 2 ** (int(layer[len("conv") : layer.index("_")]) - 1)

    def forward(self, image: torch.Tensor, layers: Sequence[str]) -> list[torch.Tensor]:
        """Feature maps of ``image``.

        Args:
            image: (B, 1, H, W), network units.
            layers: names of layers; nothing is computed beyond the deepest of them.

        Returns:
            (B, C, H / 2^(k-1), W / 2^(k-1)) for each name, where k is the layer's block, in the order of ``layers``.

        Raises:
            ValueError: a name is unknown, or the image is smaller than a feature of the deepest layer.
        """
        self.check_layers(layers)
        wanted = {self.layers[name] for name in layers}
        found: dict[int, torch.Tensor] = {}
        x = self.prepare(image)
        for index, module in enumerate(self.features):
            if index > max(wanted):
                break
            if isinstance(module, nn.MaxPool2d) and min(x.shape[-2:]) < 2:
                raise ValueError(
                    f"Expected images large enough for {', '.join(layers)}, but got {tuple(image.shape[-2:])}. Choose "
                    "shallower layers or larger patches (patches.size)."
                )
            x = module(x)
            if index in wanted:
                found[index] = x
        return [found[self.layers[name]] for name in layers]


def frozen(module: ModuleType) -> ModuleType:
    """Put ``module`` into eval mode and turn off the gradients of its weights, so that it does not learn."""
    return module.eval().requires_grad_(False)
