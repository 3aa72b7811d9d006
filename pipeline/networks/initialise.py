"""Initial weights."""

from __future__ import annotations

from torch import nn

from ct_cncl.pipeline.networks.normalisation import LayerNorm2d


def initialise_gaussian(network: nn.Module, *, std: float = 0.02) -> None:
    """Draw convolution weights from N(0, std) and normalisation scales from N(1, std), as the paper does; set biases to 0.

    Args:
        network: changed in place, with all submodules.
        std: standard deviation.

    Raises:
        ValueError: ``std`` is not positive.
    """
    if std <= 0:
        raise ValueError(f"Expected a positive standard deviation for the initial weights, but got {std}.")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, LayerNorm2d) or (
            isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.affine
        ):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
