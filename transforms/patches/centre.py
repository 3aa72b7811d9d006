"""Selects the slice that is denoised from it and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms import Transform

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked


class CentreSlice(Transform):
    """The centre one of an odd number of neighbouring slices."""

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """(C, H, W) to (1, H, W), or (B, C, H, W) to (B, 1, H, W): a view."""
        slices = img.shape[-3]
        return img[..., slices // 2 : slices // 2 + 1, :, :]


class CentreSliced(BatchTransform):
    """Dictionary version of :class:`CentreSlice`: a target needs no neighbours, once the image is made from it.

    Args:
        keys: neighbouring slices (C, H, W), C odd.
        allow_missing_keys: skip keys that are not there.
    """

    transform = CentreSlice()

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """(B, 1, H, W)."""
        for key in self.key_iterator(items):
            items[key] = self.transform(stacked(items[key]))
        return items
