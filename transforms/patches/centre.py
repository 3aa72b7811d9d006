"""Select the slice to be denoised from the slices around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms import Transform

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked


class CentreSlice(Transform):
    """The centre slice of an odd number of neighbouring slices."""

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Select (1, H, W) from (C, H, W), or (B, 1, H, W) from (B, C, H, W), as a view."""
        slices = img.shape[-3]
        return img[..., slices // 2 : slices // 2 + 1, :, :]


class CentreSliced(BatchTransform):
    """Dictionary version of :class:`CentreSlice`: a target needs no neighbours once the image has been made from it.

    Args:
        keys: neighbouring slices (C, H, W), C odd.
        allow_missing_keys: skip keys that the item lacks.
    """

    transform = CentreSlice()

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """Select the centre slices, (B, 1, H, W)."""
        for key in self.key_iterator(items):
            items[key] = self.transform(stacked(items[key]))
        return items
