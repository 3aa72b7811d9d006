"""Cutting a square patch from a slice, where there is a body."""

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
"""Voxels above it count as body: lungs' vessels and walls do, air and most of the table do not."""
DRAWS = 8
"""Times that a place without enough body is drawn again."""


class RandPatch(RandomizableTransform):
    """A square patch from a random place of an image, drawn again up to 8 times where there is too little body.

    Args:
        patch_size: side in pixels.
        zoom_range: of a :class:`~ct_cncl.transforms.patches.pixel_size.RandPixelSize` that follows: the patch is cut as large
            as its smallest zoom needs. None cuts ``patch_size``.
        body_fraction: share of the patch that should lie above -500 HU.

    Raises:
        ValueError: sizes or shares outside their range.
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
        """Pixels a side that are cut."""
        self.place = (0, 0)
        """First row and column, drawn last."""

    def randomize(self, data: Any) -> None:
        """Draw a place in ``data``, an image (C, H, W) in HU; of several channels the centre one decides.

        Raises:
            ValueError: an image smaller than the patch.
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
        """The patch (C, side, side) of an image (C, H, W): a view.

        Args:
            img: HU.
            randomize: draw first; False cuts at the place drawn last.
        """
        if randomize:
            self.randomize(img)
        return cut_at(img, self.place, self.side)


def cut_at(img: Any, place: tuple[int, int], side: int) -> Any:
    """``img[..., x : x + side, y : y + side]``."""
    row, column = place
    return img[..., row : row + side, column : column + side]


class RandPatchd(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandPatch`; all keys are cut at the same place.

    Args:
        keys: images (C, H, W) of one size, HU, and what belongs to them pixel by pixel: weights, noise realizations.
        patch_size: see :class:`RandPatch`.
        zoom_range: see there.
        body_fraction: see there.
        body_key: the image that says where the body is.
        allow_missing_keys: skip keys that are not there.
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
        """As everywhere in MONAI: what is drawn from now on depends on ``seed`` only."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw a place in the image ``data``."""
        self.transform.randomize(data)

    def draw(self, item: Mapping[Hashable, Any]) -> tuple[int, int]:
        """First row and column."""
        self.randomize(item[self.body_key])
        return self.transform.place

    def apply(self, items: Items, drawn: Sequence[tuple[int, int]]) -> Items:
        """Patches (B, C, side, side), float32; noise realizations are cut without being read."""
        side = self.transform.side
        for key in self.key_iterator(items):
            cut = [cut_at(value, place, side) for value, place in zip(items[key], drawn, strict=True)]
            items[key] = torch.stack(cut).float() if isinstance(cut[0], torch.Tensor) else cut
        return items
