"""HU to network units, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from monai.transforms import Transform

from ct_cncl.transforms.anatomy.regions import padding_as_air
from ct_cncl.transforms.common.hu import to_hu, to_network
from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked


class HUToNetwork(Transform):
    """HU to network units, ``(HU + 1024) / 4096``; nothing is clipped, but scanner padding is taken as -1024 HU.

    See :func:`~ct_cncl.transforms.anatomy.regions.padding_as_air`.
    """

    def __call__(self, img: Any) -> Any:
        """Convert an image of any shape; its type and metadata stay."""
        return to_network(padding_as_air(img))


class NetworkToHU(Transform):
    """Network units to HU, the exact inverse of :class:`HUToNetwork` for integer HU other than padding."""

    def __call__(self, img: Any) -> Any:
        """Convert an image of any shape; its type and metadata stay."""
        return to_hu(img)


class _EachPixel(BatchTransform):
    """A transform whose result in a pixel depends on that pixel alone, so volumes and batches need no distinction."""

    transform: ClassVar[Transform]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key, of any shape; metadata stay."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = self.transform(items[key])
        return items

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """Convert each key of a batch to (B, C, H, W)."""
        for key in self.key_iterator(items):
            items[key] = self.transform(stacked(items[key]))
        return items


class HUToNetworkd(_EachPixel):
    """Dictionary version of :class:`HUToNetwork`."""

    transform = HUToNetwork()


class NetworkToHUd(_EachPixel):
    """Dictionary version of :class:`NetworkToHU`."""

    transform = NetworkToHU()
