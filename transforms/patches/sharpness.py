"""Random changes of the reconstruction kernel, softer or sharper: image and target are filtered alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform
from torch.nn import functional

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked
from ct_cncl.transforms.patches.pixel_size import check_range

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Taps of a binomial blur with a standard deviation of one pixel."""


def refiltered(images: torch.Tensor, sharpness: float | torch.Tensor) -> torch.Tensor:
    """Filter images as if a softer or sharper kernel had reconstructed them; their mean level stays.

    The frequency response is ``1 + sharpness (1 - B(u) B(v))``, where ``B(u) = cos^4(pi u)`` is that of the binomial blur and
    u is in cycles per pixel: it is 1 at frequency 0 and ``1 + sharpness`` at the highest frequency.

    Args:
        images: (B, C, H, W), HU; they are mirrored at the borders.
        sharpness: above -1; 0 changes nothing. One value for all images, or a tensor (B, 1, 1, 1).

    Returns:
        (B, C, H, W), HU.
    """
    if isinstance(sharpness, float) and sharpness == 0:
        return images
    blurred = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    for axis in (-2, -1):
        # Sums in a fixed order, not a convolution: the result for an image must not depend on the batch it is in.
        pixels = images.shape[axis]
        blurred = sum(weight * blurred.narrow(axis, tap, pixels) for tap, weight in enumerate(BINOMIAL))  # type: ignore[assignment]
    return images + sharpness * (images - blurred)


class RandSharpness(RandomizableTransform):
    """An image as if reconstructed with another kernel.

    Args:
        sharpness_range: lowest and highest sharpness, above -1, drawn uniformly, see :func:`refiltered`; None keeps the kernel.

    Raises:
        ValueError: the range is invalid.
    """

    def __init__(self, sharpness_range: Sequence[float] | None) -> None:
        super().__init__(1.0)
        self.sharpness_range = (
            None if sharpness_range is None else check_range("sharpness_range", sharpness_range, above=-1)
        )
        self.sharpness = 0.0
        """The sharpness last drawn."""

    def randomize(self, data: Any = None) -> None:
        """Draw a sharpness."""
        if self.sharpness_range is not None:
            self.sharpness = float(self.R.uniform(*self.sharpness_range))

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Filter (C, H, W) or (B, C, H, W), HU; the result has the same shape, float32."""
        if randomize:
            self.randomize()
        batch = img if img.ndim == 4 else img[None]
        result = refiltered(batch.float(), self.sharpness)
        return result if img.ndim == 4 else result[0]


class RandSharpnessd(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandSharpness`; all keys get the same kernel.

    Args:
        keys: images (C, H, W), HU.
        sharpness_range: see :class:`RandSharpness`.
        allow_missing_keys: skip keys that the item lacks.
    """

    def __init__(
        self, keys: KeysCollection, sharpness_range: Sequence[float] | None, *, allow_missing_keys: bool = False
    ) -> None:
        RandomizableTransform.__init__(self)
        BatchTransform.__init__(self, keys, allow_missing_keys)
        self.transform = RandSharpness(sharpness_range)

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to draw."""
        return self.transform.sharpness_range is None

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSharpnessd:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw a sharpness."""
        self.transform.randomize()

    def draw(self, item: Mapping[Hashable, Any]) -> float:
        """Draw a sharpness for one item."""
        self.randomize()
        return self.transform.sharpness

    def apply(self, items: Items, drawn: Sequence[float]) -> Items:
        """Filter the images; they come back as (B, C, H, W), float32."""
        if self.fixed:
            return items
        for key in self.key_iterator(items):
            images = stacked(items[key]).float()
            items[key] = refiltered(images, torch.tensor(drawn).to(images)[:, None, None, None])
        return items
