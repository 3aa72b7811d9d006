"""CNCL whose branches see each other's features, or whose fusion sees the features of both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ct_cncl.pipeline.networks.branches import Branches, centre_slice, pad_to_multiple
from ct_cncl.pipeline.networks.cncl import CNCL


class InteractingCNCL(CNCL):
    """CNCL with an interaction between the branches' feature maps and, optionally, a fusion of feature maps.

    A predictor must give access to its features: ``encode(image)`` returns a feature map and the skips; ``up`` is a list of
    modules called as ``up(features, skip)`` with the last skip first; ``head(features, image)`` makes the image; ``channels``
    and ``scales`` (side in pixels of the block that a feature represents) list these values after each ``up``, or after
    ``encode`` if ``up`` is empty. All predictors of this package except RED-CNN do; the two branches may use different ones.

    Args:
        content: predictor of the content.
        noise: predictor of the noise; one without ``encode`` (``BlockDecoder``) uses the encoder of ``content``.
        fusion: a module called as ``fusion(content, y - noise)``; or a function, called once as ``fusion(content_channels,
            noise_channels, scale=...)``, that makes a module called as ``fusion(content_features, noise_features, content, y - noise)``,
            for example ``FeatureFusion`` (in a config: with ``"_mode_": "callable"``).
        interaction: a function, called once per level as ``interaction(content_channels, noise_channels)``, that makes a module
            which maps a pair of feature maps to a pair of the same shapes, for example ``FeatureAttention`` or ``Exchange``;
            None for no interaction.
        levels: where the branches interact: "last", before the heads, or "every", after each step of the decoders.
        init_std: see ``CNCL``; for the predictors only.
        level_sigma: see ``CNCL``.

    Raises:
        ValueError: ``levels`` is unknown, the feature maps of the predictors differ in scale where they meet, or a predictor
            lacks what ``levels`` needs.
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
                f'{_levels(noise, "scales", levels)} for noise. Give both predictors the same depth, or set levels to "last".'
            )
        shares_encoder = not hasattr(noise, "encode")
        if shares_encoder and _levels(content, "channels", "every") != _levels(noise, "channels", "every"):
            raise ValueError(
                f"Expected the noise branch, which uses content's encoder, to have content's channels {content.channels}, but got "
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
        """Last feature maps of content and noise for an image (B, C, H, W) with sides divisible by ``multiple``."""
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
        """Content, noise and fused image for ``image`` (B, C, H, W) in network units; any H and W."""
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
    """The predictor's ``channels`` or ``scales`` at the levels at which it interacts.

    Raises:
        ValueError: ``levels`` is unknown, or the predictor lacks ``attribute`` or decoder levels.
    """
    if levels not in ("last", "every"):
        raise ValueError(f"Expected levels 'last' or 'every', but got {levels!r}.")
    values = getattr(predictor, attribute, None)
    if values is None or (levels == "every" and len(predictor.up) == 0):  # type: ignore[arg-type]
        raise ValueError(
            f"Expected a predictor with {'decoder levels' if values is not None else attribute} for levels {levels!r}, "
            f"but got {type(predictor).__name__}. Use another predictor, or CNCL."
        )
    return list(values) if levels == "every" else list(values[-1:])
