"""MONAI dictionary transforms between HU and network units, and for the scanner's padding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.common.hu import to_hu, to_network
from ct_cncl.transforms.series.values import RESULT, keep_padding


class HUToNetworkd(MapTransform):
    """HU to network units, ``(HU + 1024) / 4096``; nothing is clipped."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key; meta data stay."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = to_network(items[key])
        return items


class NetworkToHUd(MapTransform):
    """Network units to HU, the exact inverse of :class:`HUToNetworkd` for whole HU."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key; meta data stay."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = to_hu(items[key])
        return items


class KeepPaddingd(MapTransform):
    """Give each key the image's values where the scanner padded, so that padding leaves as it came.

    Args:
        keys: volumes (1, x, y, z) in HU.
        image_key: the scan that was read, of the same shape, HU.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(self, keys: KeysCollection, *, image_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the padding back."""
        items = dict(data)
        image = convert_to_tensor(items[self.image_key], track_meta=False).cpu().numpy()
        padded = padding_mask(image[0])[None]
        for key in self.key_iterator(items):
            value = items[key]
            own = convert_to_tensor(value, track_meta=False).cpu().numpy()
            kept = torch.from_numpy(keep_padding({RESULT: own}, image, padded)[RESULT])
            items[key] = convert_to_dst_type(kept, value, dtype=kept.dtype)[0]
        return items
