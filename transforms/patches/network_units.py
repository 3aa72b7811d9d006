"""HU to network units, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from monai.transforms import Transform

from ct_cncl.transforms.anatomy.regions import padding_as_air
from ct_cncl.transforms.common.hu import to_hu, to_network
from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked


class HUToNetwork(Transform):
    """HU to network units, ``(HU + 1024) / 4096``; nothing is clipped, but padding is seen as -1024 HU.

    See :func:`~ct_cncl.transforms.anatomy.regions.padding_as_air`.
    """

    def __call__(self, img: Any) -> Any:
        """Any shape; type and meta data stay."""
        return to_network(padding_as_air(img))


class NetworkToHU(Transform):
    """Network units to HU, the exact inverse of :class:`HUToNetwork` for whole HU that are no padding."""

    def __call__(self, img: Any) -> Any:
        """Any shape; type and meta data stay."""
        return to_hu(img)


class _EachPixel(BatchTransform):
    """A transform whose result in a pixel depends on that pixel alone: volumes and batches are one to it."""

    transform: ClassVar[Transform]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key, of any shape; meta data stay."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = self.transform(items[key])
        return items

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """(B, C, H, W)."""
        for key in self.key_iterator(items):
            items[key] = self.transform(stacked(items[key]))
        return items


class HUToNetworkd(_EachPixel):
    """Dictionary version of :class:`HUToNetwork`."""

    transform = HUToNetwork()


class NetworkToHUd(_EachPixel):
    """Dictionary version of :class:`NetworkToHU`."""

    transform = NetworkToHU()
