"""The scanner's padding: marked for validation, and put back into results before they are written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked
from ct_cncl.transforms.series.values import RESULT, keep_padding


class PaddingMask(Transform):
    """Mask of the scanner's padding in a slice, see :func:`~ct_cncl.transforms.anatomy.regions.padding_mask`."""

    def __call__(self, img: Any) -> torch.Tensor:
        """Mask of a slice (1, H, W) in HU, of the same shape, boolean."""
        hu = convert_to_tensor(img, track_meta=False)
        return torch.from_numpy(padding_mask(hu[0].cpu().numpy()))[None]


class PaddingMaskd(BatchTransform):
    """Dictionary version of :class:`PaddingMask`.

    Args:
        keys: the slice (1, H, W), HU, in which padding is looked for.
        mask_key: entry that receives the mask.
        allow_missing_keys: skip keys that the item lacks.
    """

    transform = PaddingMask()

    def __init__(
        self, keys: KeysCollection, *, mask_key: Hashable = "padding", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """Add the masks (B, 1, H, W), boolean."""
        for key in self.key_iterator(items):
            items[self.mask_key] = stacked([self.transform(img) for img in items[key]])
        return items


class KeepPaddingd(MapTransform):
    """Copy the values of the original scan into each key where the scanner padded it, so that padding stays unchanged.

    Args:
        keys: volumes (1, x, y, z) in HU.
        image_key: the original scan, of the same shape, HU.
        allow_missing_keys: skip keys that the item lacks.
    """

    def __init__(self, keys: KeysCollection, *, image_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the padding back into each key."""
        items = dict(data)
        image = convert_to_tensor(items[self.image_key], track_meta=False).cpu().numpy()
        padded = padding_mask(image[0])[None]
        for key in self.key_iterator(items):
            value = items[key]
            own = convert_to_tensor(value, track_meta=False).cpu().numpy()
            kept = torch.from_numpy(keep_padding({RESULT: own}, image, padded)[RESULT])
            items[key] = convert_to_dst_type(kept, value, dtype=kept.dtype)[0]
        return items
