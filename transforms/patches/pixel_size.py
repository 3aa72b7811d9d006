"""Random changes of the pixel size: image and target are resampled alike.

Resampling is a linear operation, so it changes the noise of the image and of its target alike. The ratio of the two noise
levels stays the same and their spectra still match; the right share of noise to remove depends on both.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, SequenceStr
from monai.transforms import RandomizableTransform
from monai.utils import ensure_tuple_rep
from torch.nn import functional

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked

MODES = ("bicubic", "nearest-exact")


def check_range(name: str, bounds: Sequence[float], *, above: float) -> tuple[float, float]:
    """Check the bounds of a random choice, and return the lowest and the highest value.

    Raises:
        ValueError: ``bounds`` are not two ordered numbers above ``above``.
    """
    if len(bounds) != 2 or not above < bounds[0] <= bounds[1]:
        raise ValueError(f"Expected {name} to be two ordered numbers above {above:g}, but got {list(bounds)}.")
    return float(bounds[0]), float(bounds[1])


def resampled(images: torch.Tensor, side: int, *, mode: str = "bicubic") -> torch.Tensor:
    """Resample square images to another pixel size by cubic interpolation (Keys 1981); larger pixels average smaller ones.

    Args:
        images: (B, C, H, H), HU.
        side: pixels per side of the result.
        mode: "bicubic", or "nearest-exact" for masks and weights.

    Returns:
        (B, C, side, side), HU.
    """
    if images.shape[-1] == side:
        return images
    if mode == "nearest-exact":
        return functional.interpolate(images, size=(side, side), mode=mode)
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True)


class RandPixelSize(RandomizableTransform):
    """The centre of a patch at a random pixel size, as if the scan had another field of view.

    Args:
        patch_size: side of the result in pixels.
        zoom_range: lowest and highest factor on the number of pixels per mm, drawn log-uniformly; None keeps the pixel size.
        mode: see :func:`resampled`.

    Raises:
        ValueError: the range is invalid or the mode unknown.
    """

    def __init__(self, patch_size: int, *, zoom_range: Sequence[float] | None, mode: str = "bicubic") -> None:
        super().__init__(1.0)
        if mode not in MODES:
            raise ValueError(f"Expected a mode of {', '.join(MODES)}, but got {mode!r}.")
        self.patch_size = patch_size
        self.zoom_range = None if zoom_range is None else check_range("zoom_range", zoom_range, above=0)
        self.mode = mode
        self.side = patch_size
        """Pixels per side of the square that is resampled, as last drawn."""

    def randomize(self, data: Any = None) -> None:
        """Draw a zoom factor."""
        if self.zoom_range is not None:
            low, high = (math.log(bound) for bound in self.zoom_range)
            self.side = max(1, round(self.patch_size / math.exp(self.R.uniform(low, high))))

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Resample the centre of (C, H, H) or (B, C, H, H) to ``patch_size`` pixels per side.

        Raises:
            ValueError: the image is smaller than the zoom needs.
        """
        if randomize:
            self.randomize()
        batch = img if img.ndim == 4 else img[None]
        result = resampled(centred(batch, self.side), self.patch_size, mode=self.mode)
        return result if img.ndim == 4 else result[0]


def centred(images: torch.Tensor, side: int) -> torch.Tensor:
    """The centre square of images (..., H, W), as a view of them.

    Raises:
        ValueError: the images are smaller than ``side``.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(
            f"Expected patches of at least {side} x {side} pixels, but got {height} x {width}. Give RandPatchd the same "
            "zoom_range, so that it cuts larger patches."
        )
    row, column = (height - side) // 2, (width - side) // 2
    return images[..., row : row + side, column : column + side]


class RandPixelSized(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandPixelSize`; all keys get the same pixel size.

    Args:
        keys: patches (C, H, H) of one size.
        patch_size: see :class:`RandPixelSize`.
        zoom_range: see :class:`RandPixelSize`.
        mode: one for all keys, or one for each.
        allow_missing_keys: skip keys that the item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: int,
        *,
        zoom_range: Sequence[float] | None,
        mode: SequenceStr = "bicubic",
        allow_missing_keys: bool = False,
    ) -> None:
        RandomizableTransform.__init__(self)
        BatchTransform.__init__(self, keys, allow_missing_keys)
        self.modes = ensure_tuple_rep(mode, len(self.keys))
        self.transform = RandPixelSize(patch_size, zoom_range=zoom_range, mode=self.modes[0])

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to draw."""
        return self.transform.zoom_range is None

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandPixelSized:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw a zoom factor."""
        self.transform.randomize()

    def draw(self, item: Mapping[Hashable, Any]) -> int:
        """Draw a zoom factor; returns the pixels per side of the square that is resampled."""
        self.randomize()
        return self.transform.side

    def apply(self, items: Items, drawn: Sequence[int]) -> Items:
        """Resample to (B, C, patch_size, patch_size); patches with the same zoom are resampled together."""
        if self.fixed:
            return items
        alike: dict[int, list[int]] = {}
        for place, side in enumerate(drawn):
            alike.setdefault(side, []).append(place)
        order = np.argsort([place for places in alike.values() for place in places]).tolist()
        for key, mode in self.key_iterator(items, self.modes):
            images = stacked(items[key])
            parts = [
                resampled(centred(images[places], side), self.transform.patch_size, mode=mode)
                for side, places in alike.items()
            ]
            items[key] = torch.cat(parts)[order] if len(parts) > 1 else parts[0]
        return items
