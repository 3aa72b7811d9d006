"""Blocks of 3x3 convolutions with pooling between, whose feature maps have names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class ConvStages(nn.Module):
    """Convolution and ReLU, several times a block, 2x2 max pooling between the blocks: the layout of VGG.

    ``features`` has the indices of torchvision's VGG. Layers are named as in the literature: ``conv3_2`` is what the
    second convolution of the third block puts out, before its activation, ``relu3_2`` the same after it. In block k a
    feature stands for 2^(k-1) x 2^(k-1) pixels.

    Borders are continued by their own values, not by zeros: a patch ends within the body, and an edge from there to 0 (water,
    or mid-grey) outweighs all noise in the features along it, so that textures would depend on the patch's size.

    Args:
        widths: channels of each block.
        convolutions: number of them in each block.
        in_channels: of the image.
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
        """Network units (B, 1, H, W) to what the first convolution takes."""
        raise NotImplementedError

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse names that are no layers.

        Raises:
            ValueError: naming them.
        """
        unknown = [name for name in layers if name not in self.layers]
        if unknown or not layers:
            raise ValueError(
                f"Expected layers of {', '.join(self.layers)}, but got {', '.join(unknown) or 'none'}. Choose at least one."
            )

    def pixels(self, layer: str) -> int:
        """Pixels along each side that a feature of ``layer`` stands for.

        Raises:
            ValueError: unknown name.
        """
        self.check_layers([layer])
        return 2 ** (int(layer[len("conv") : layer.index("_")]) - 1)

    def forward(self, image: torch.Tensor, layers: Sequence[str]) -> list[torch.Tensor]:
        """Feature maps of ``image``.

        Args:
            image: (B, 1, H, W), network units.
            layers: names; nothing is computed beyond the deepest of them.

        Returns:
            (B, C, H / 2^(k-1), W / 2^(k-1)) for each name, in the order of ``layers``.

        Raises:
            ValueError: unknown names, or an image that is smaller than a feature of the deepest layer.
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
    """``module`` in eval mode, none of its weights asking for a gradient: it judges and does not learn."""
    return module.eval().requires_grad_(False)
