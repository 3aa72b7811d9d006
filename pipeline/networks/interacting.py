"""CNCL whose branches see each other's features, or whose fusion does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ct_cncl.pipeline.networks.branches import Branches, centre_slice, pad_to_multiple
from ct_cncl.pipeline.networks.cncl import CNCL


class InteractingCNCL(CNCL):
    """CNCL with an interaction between the branches' feature maps and, if wanted, a fusion of feature maps.

    A predictor whose features can be reached has ``encode(image)``, which returns a feature map and the skips; ``up``,
    a list of modules called as ``up(features, skip)`` with the last skip first; ``head(features, image)``; and the lists
    ``channels`` and ``scales`` (pixels that a feature stands for) of the feature maps after each ``up``, or of ``encode``'s
    where there is none. All predictors of this package do; content and noise may use different ones.

    Args:
        content: predictor of the content.
        noise: predictor of the noise; one without ``encode`` (``BlockDecoder``) takes what content's encoder gives.
        fusion: a module called as ``fusion(content, y - noise)``; or a function, called once as ``fusion(content_channels,
            noise_channels, scale=...)``, that makes a module called as ``fusion(content_features, noise_features, content, y - noise)``,
            for example ``FeatureFusion`` (in a config: with ``"_mode_": "callable"``).
        interaction: a function, called once a level as ``interaction(content_channels, noise_channels)``, that makes a module
            from a pair of feature maps to a pair of the same shapes, for example ``FeatureAttention`` or ``Exchange``; None for none.
        levels: where the branches interact: "last", before the heads, or "every", after each step of the decoders.
        init_std: see ``CNCL``; for the predictors only.
        level_sigma: see ``CNCL``.

    Raises:
        ValueError: unknown ``levels``; predictors whose feature maps differ in scale where they meet, or without
            decoder where every level is asked for.
    """

    __constants__ = ("every_level", "fuses_features", "interacts", "shares_encoder")

    def __init__(
        self,
        *,
        content: nn.Module,
        noise: nn.Module,
        fusion: nn.Module | Callable[..., nn.Module],
        interaction: Callable[[int, int], nn.Module] | None = None,
        levels: str = "last",
        init_std: float | None = None,
        level_sigma: float = 0.0,
    ) -> None:
        channels = list(zip(_levels(content, "channels", levels), _levels(noise, "channels", levels)))
        scales = _levels(content, "scales", levels)
        if scales != _levels(noise, "scales", levels):
            raise ValueError(
                f"Expected feature maps of the same scales where the branches meet, but got {scales} for content and "
                f"{_levels(noise, 'scales', levels)} for noise. Give both predictors the same depth, or interact at the last level."
            )
        shares_encoder = not hasattr(noise, "encode")
        if shares_encoder and _levels(content, "channels", "every") != _levels(noise, "channels", "every"):
            raise ValueError(
                f"Expected a decoder of content's channels where noise takes content's encoder, {content.channels}, but got "
                f"{noise.channels}. Give both the same width and depth."
            )
        fuses_features = not isinstance(fusion, nn.Module)
        fusion = fusion if isinstance(fusion, nn.Module) else fusion(*channels[-1], scale=scales[-1])
        super().__init__(content=content, noise=noise, fusion=fusion, init_std=init_std, level_sigma=level_sigma)
        self.fuses_features = fuses_features
        self.shares_encoder = shares_encoder
        self.every_level = levels == "every"
        self.interacts = interaction is not None
        self.interactions = nn.ModuleList([] if interaction is None else [interaction(*pair) for pair in channels])

    def features(self, padded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last feature maps of content and noise of an image (B, C, H, W), sides divisible by ``multiple``."""
        content, content_skips = self.content.encode(padded)  # type: ignore[operator]
        if self.shares_encoder:
            noise, noise_skips = content, content_skips.copy()
        else:
            noise, noise_skips = self.noise.encode(padded)  # type: ignore[operator]
        if self.interacts and self.every_level:
            for content_up, noise_up, interaction in zip(self.content.up, self.noise.up, self.interactions):  # type: ignore[arg-type]
                content = content_up(content, content_skips.pop())
                noise = noise_up(noise, noise_skips.pop())
                content, noise = interaction(content, noise)
        else:
            for up in self.content.up:  # type: ignore[union-attr]
                content = up(content, content_skips.pop())
            for up in self.noise.up:  # type: ignore[union-attr]
                noise = up(noise, noise_skips.pop())
            for interaction in self.interactions:
                content, noise = interaction(content, noise)
        return content, noise

    @torch.jit.export
    def branches(self, image: torch.Tensor) -> Branches:
        """Content, noise and fused image of ``image`` (B, C, H, W), in network units, any H and W."""
        padded = pad_to_multiple(image, self.multiple)
        content_features, noise_features = self.features(padded)
        content = self.content.head(content_features, padded)  # type: ignore[operator]
        noise = self.noise.head(noise_features, padded)  # type: ignore[operator]
        denoised = centre_slice(padded) - noise
        if self.fuses_features:
            fused = self.fusion(content_features, noise_features, content, denoised)
        else:
            fused = self.fusion(content, denoised)
        return self.cropped(image, content, noise, fused)


def _levels(predictor: nn.Module, attribute: str, levels: str) -> list[int]:
    """The predictor's ``channels`` or ``scales`` where it interacts.

    Raises:
        ValueError: unknown ``levels``, or a predictor without what is asked for.
    """
    if levels not in ("last", "every"):
        raise ValueError(f"Expected levels 'last' or 'every', but got {levels!r}.")
    values = getattr(predictor, attribute, None)
    if values is None or (levels == "every" and len(predictor.up) == 0):  # type: ignore[arg-type]
        raise ValueError(
            f"Expected a predictor with {'decoder levels' if values is not None else attribute} for an interaction at "
            f"{levels} level, but got {type(predictor).__name__}. Use another predictor, or CNCL."
        )
    return list(values) if levels == "every" else list(values[-1:])
