"""Cut a square patch from a slice where the slice shows the body."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform

from ct_cncl.transforms.patches.batch import BatchTransform, Items
from ct_cncl.transforms.patches.pixel_size import check_range

BODY_THRESHOLD_HU = -500.0
"""Voxels above this count as body: vessels and walls of the lungs do, air and most of the table do not."""
DRAWS = 8
"""Largest number of draws for a place with enough body; the last one is taken in any case."""


class RandPatch(RandomizableTransform):
    """A square patch from a random place of an image. Up to 8 places are drawn until one holds enough of the body.

    Args:
        patch_size: side in pixels.
        zoom_range: range of a later :class:`~ct_cncl.transforms.patches.pixel_size.RandPixelSize`: the patch is cut as large
            as its smallest zoom needs. None cuts ``patch_size``.
        body_fraction: fraction of the patch that should lie above -500 HU.

    Raises:
        ValueError: ``patch_size`` or ``body_fraction`` is out of range.
    """

    def __init__(
        self, patch_size: int, *, zoom_range: Sequence[float] | None = None, body_fraction: float = 0.1
    ) -> None:
        super().__init__(1.0)
        if patch_size < 1 or not 0 <= body_fraction <= 1:
            raise ValueError(
                f"Expected a patch_size of at least 1 and a body_fraction from 0 to 1, but got {patch_size} and {body_fraction}."
            )
        self.patch_size = patch_size
        self.body_fraction = body_fraction
        least = 1.0 if zoom_range is None else min(1.0, check_range("zoom_range", zoom_range, above=0)[0])
        self.side = math.ceil(patch_size / least)
        """Side of the square that is cut, in pixels."""
        self.place = (0, 0)
        """First row and column, as last drawn."""

    def randomize(self, data: Any) -> None:
        """Draw a place in ``data``, an image (C, H, W) in HU; with several channels, the centre channel decides.

        Raises:
            ValueError: the image is smaller than the patch.
        """
        height, width = data.shape[-2:]
        if min(height, width) < self.side:
            raise ValueError(
                f"Expected slices of at least {self.side} x {self.side} pixels (patch_size, zoom_range), but got {height} x "
                f"{width}. Lower patch_size."
            )
        plane = data[len(data) // 2]
        plane = plane.detach().cpu().numpy() if isinstance(plane, torch.Tensor) else plane
        for _ in range(DRAWS):
            row, column = (int(self.R.randint(pixels - self.side + 1)) for pixels in (height, width))
            self.place = (row, column)
            inside = plane[row : row + self.side, column : column + self.side] > BODY_THRESHOLD_HU
            if np.count_nonzero(inside) >= self.body_fraction * inside.size:
                break

    def __call__(self, img: Any, randomize: bool = True) -> Any:
        """Cut the patch (C, side, side) from an image (C, H, W), as a view.

        Args:
            img: HU.
            randomize: draw a place first; False cuts at the place last drawn.
        """
        if randomize:
            self.randomize(img)
        return cut_at(img, self.place, self.side)


def cut_at(img: Any, place: tuple[int, int], side: int) -> Any:
    """The square of ``img`` (..., H, W) that starts at the (row, column) of ``place``, as a view."""
    row, column = place
    return img[..., row : row + side, column : column + side]


class RandPatchd(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandPatch`; all keys are cut at the same place.

    Args:
        keys: images (C, H, W) of one size, HU, and whatever matches them pixel by pixel: weights, noise realizations.
        patch_size: see :class:`RandPatch`.
        zoom_range: see :class:`RandPatch`.
        body_fraction: see :class:`RandPatch`.
        body_key: the image that shows where the body is.
        allow_missing_keys: skip keys that the item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: int,
        *,
        zoom_range: Sequence[float] | None = None,
        body_fraction: float = 0.1,
        body_key: Hashable = "label",
        allow_missing_keys: bool = False,
    ) -> None:
        RandomizableTransform.__init__(self)
        BatchTransform.__init__(self, keys, allow_missing_keys, extra_keys=(body_key,))
        self.body_key = body_key
        self.transform = RandPatch(patch_size, zoom_range=zoom_range, body_fraction=body_fraction)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandPatchd:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw a place in the image ``data``."""
        self.transform.randomize(data)

    def draw(self, item: Mapping[Hashable, Any]) -> tuple[int, int]:
        """Draw a place; returns its first row and column."""
        self.randomize(item[self.body_key])
        return self.transform.place

    def apply(self, items: Items, drawn: Sequence[tuple[int, int]]) -> Items:
        """Cut patches (B, C, side, side), float32; noise realizations are cut without being read."""
        side = self.transform.side
        for key in self.key_iterator(items):
            cut = [cut_at(value, place, side) for value, place in zip(items[key], drawn, strict=True)]
            items[key] = torch.stack(cut).float() if isinstance(cut[0], torch.Tensor) else cut
        return items
