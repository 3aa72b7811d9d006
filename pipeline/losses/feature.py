"""Texture and perceptual loss of CNCL's branches, from one frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ct_cncl.pipeline.losses.encoders.stages import ConvStages, frozen
from ct_cncl.pipeline.losses.texture import content_distance, texture_distance
from ct_cncl.pipeline.networks import Branches, centre_slice
from ct_cncl.pipeline.networks.precision import autocast
from ct_cncl.transforms.common.hu import to_network

_IMAGES = ("content", "denoised", "fused")
"""Images that the losses may compare: C(y), y - N(y) and the result."""
PROBE_NOISE_HU = 25.0
PROBE_TISSUE_HU = 50.0


@torch.no_grad()
def noise_response(encoder: ConvStages, layers: Sequence[str], *, device: torch.device) -> list[float]:
    """Root mean square change of each layer's features by white noise of 25 HU on soft tissue of 50 HU.

    Features are compared in this unit, so that all layers and encoders count alike and a weight means the same for each.

    Args:
        encoder: the encoder, on ``device``.
        layers: names of layers.
        device: device of the encoder.

    Returns:
        One value for each name, always the same for the same weights.

    Raises:
        ValueError: a layer does not respond to the noise.
    """
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    tissue = torch.full_like(noise, PROBE_TISSUE_HU)
    pairs = zip(
        encoder(to_network(tissue + PROBE_NOISE_HU * noise), layers), encoder(to_network(tissue), layers), strict=True
    )
    responses = [float((noisy.float() - clean.float()).square().mean().sqrt()) for noisy, clean in pairs]
    for name, response in zip(layers, responses, strict=True):
        if not response > 0:
            raise ValueError(
                f"Expected layers that respond to noise in soft tissue, but {name} does not. Choose another layer, or a window "
                "that holds 50 HU."
            )
    return responses


class FeatureLoss:
    """Distance between an image and the reference in the features of an encoder, averaged over layers.

    Features are in units of :func:`noise_response`: if 25 HU of white noise are missing in soft tissue, both losses are about
    1. The texture loss is larger where there is contrast: about 7 on patches of chest and abdomen at a quarter of the dose,
    where each L1 loss of weight 100 is 0.4.

    If both weights are 0, no encoder is built and nothing is computed.

    Args:
        encoder: function that builds the encoder, for example ``CTEncoder`` with its arguments; called once if a weight is
            above 0.
        layers: names of the encoder's layers for both losses; ``conv2_2`` is before and ``relu2_2`` after the activation. The
            features before it are dense and supervise better (ESRGAN, sec. 3.2).
        device: device of the images.
        texture: weight of the distance of Gram matrices, see ``texture_distance``.
        perceptual: weight of the distance of features, see ``content_distance``.
        images: images to compare, out of "content", "denoised" and "fused".
        window: side in pixels of the squares within which textures are compared; None compares whole patches.
        centred: compare covariances within the window instead of Gram matrices, see ``texture_distance``.
        norm: norm of the perceptual loss, "l1" or "l2".
        perceptual_layers: layers of the perceptual loss, if they differ from ``layers``.
        precision: precision of the encoder, on CUDA ("fp16" keeps it in float32); both distances are computed in float32.

    Raises:
        ValueError: a weight is negative; layers, images or norm are unknown; or the window is smaller than a feature.
    """

    def __init__(
        self,
        encoder: Callable[[], ConvStages],
        *,
        layers: Sequence[str],
        device: torch.device,
        texture: float = 0.0,
        perceptual: float = 0.0,
        images: Sequence[str] = ("fused",),
        window: int | None = None,
        centred: bool = False,
        norm: str = "l1",
        perceptual_layers: Sequence[str] | None = None,
        precision: str = "fp32",
    ) -> None:
        if min(texture, perceptual) < 0:
            raise ValueError(f"Expected weights of at least 0, but got {texture} and {perceptual}.")
        unknown = [name for name in images if name not in _IMAGES]
        if unknown or not images:
            raise ValueError(f"Expected images out of {', '.join(_IMAGES)}, but got {', '.join(unknown) or 'none'}.")
        if norm not in {"l1", "l2"}:
            raise ValueError(f"Expected norm 'l1' or 'l2', but got {norm!r}.")
        self.texture = texture
        self.perceptual = perceptual
        self.layers = list(layers)
        self.perceptual_layers = list(layers if perceptual_layers is None else perceptual_layers)
        self.images = list(images)
        self.norm = norm
        self.centred = centred
        self.precision = precision
        self.encoder: ConvStages | None = None
        if max(texture, perceptual) > 0:
            self.encoder = frozen(encoder()).to(device)
            pixels = [self.encoder.pixels(name) for name in self.layers]
            least = (2 if centred else 1) * max(
                pixels
            )  # with one feature per square, nothing is left after its mean is removed
            if window is not None and window < least:
                raise ValueError(
                    f"Expected a window of at least {least} pixels ({2 if centred else 1} x the deepest layer's feature), but got "
                    f"{window}. Enlarge it, or choose shallower layers."
                )
            used = [*(self.layers if texture > 0 else ()), *(self.perceptual_layers if perceptual > 0 else ())]
            names = list(dict.fromkeys(used))
            self.responses = dict(zip(names, noise_response(self.encoder, names, device=device), strict=True))
            self.windows = [None if window is None else window // side for side in pixels]

    def __call__(self, predicted: Branches, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted terms by name; their sum is the loss.

        Args:
            predicted: branches for ``image``, each (B, 1, H, W), network units.
            image: input of the generator, (B, C, H, W), network units.
            label: reference image x, (B, 1, H, W), network units.

        Returns:
            Scalars ``texture_<image>`` and ``perceptual_<image>`` for the weights above 0.
        """
        if self.encoder is None:
            return {}
        images = {
            "content": predicted.content,
            "denoised": centre_slice(image) - predicted.noise,
            "fused": predicted.fused,
        }
        with torch.no_grad():
            targets = self._features(label)
        found = {name: self._features(images[name]) for name in self.images}
        terms = {}
        for name, features in found.items():
            if self.texture > 0:
                terms[f"texture_{name}"] = self.texture * self._texture(features, targets)
            if self.perceptual > 0:
                terms[f"perceptual_{name}"] = self.perceptual * self._perceptual(features, targets)
        return terms

    def _features(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        assert self.encoder is not None
        # In units of the noise response, gradients exceed the range of fp16; bf16 has the range of float32.
        with autocast(image.device, "fp32" if self.precision == "fp16" else self.precision):
            features = self.encoder(image, list(self.responses))
        own = zip(self.responses.items(), features, strict=True)
        return {name: feature.float() / response for (name, response), feature in own}

    def _texture(self, features: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        distances = [
            texture_distance(features[name], targets[name], window=window, centred=self.centred)
            for name, window in zip(self.layers, self.windows, strict=True)
        ]
        return torch.stack(distances).mean()

    def _perceptual(self, features: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        names = self.perceptual_layers
        return torch.stack([content_distance(features[name], targets[name], norm=self.norm) for name in names]).mean()
