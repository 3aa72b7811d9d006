"""A weight for each pixel of a slice: less where there is no patient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Transform

from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.patches.batch import BatchTransform, Items


class BodyWeight(Transform):
    """1 in the body, ``air_weight`` outside: air around it, the table and the scanner's padding.

    Args:
        air_weight: from 0 to 1.

    Raises:
        ValueError: a weight outside 0 to 1.
    """

    def __init__(self, air_weight: float) -> None:
        if not 0 <= air_weight <= 1:
            raise ValueError(f"Expected an air_weight from 0 to 1, but got {air_weight}.")
        self.air_weight = air_weight

    def __call__(self, img: Any) -> torch.Tensor:
        """Weights (1, H, W) float32 of a whole slice (C, H, W), HU; of several slices those of the centre one."""
        plane = img[len(img) // 2]
        hu = plane.detach().cpu().numpy() if isinstance(plane, torch.Tensor) else np.asarray(plane)
        return self.of_mask(body_mask(hu))

    def of_mask(self, body: np.ndarray) -> torch.Tensor:
        """Weights (1, H, W) of a body mask (H, W)."""
        return torch.where(torch.from_numpy(body), 1.0, self.air_weight)[None]


class BodyWeightd(BatchTransform):
    """Dictionary version of :class:`BodyWeight`, for whole slices: name it before a patch is cut, and cut the weights with it.

    Args:
        keys: the slice (C, H, W), HU.
        air_weight: see :class:`BodyWeight`; None makes no weights.
        weight_key: where they go.
        slice_key: an entry that names the slice (a text): its mask is kept as bits (a thousand slices of 512 x 512 take 32 MB),
            since it takes a few ms to work out. Where there is none, nothing is kept.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        air_weight: float | None,
        *,
        weight_key: Hashable = "weight",
        slice_key: Hashable = "slice",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys, extra_keys=(slice_key,))
        self.transform = None if air_weight is None else BodyWeight(air_weight)
        self.weight_key = weight_key
        self.slice_key = slice_key
        self.bodies: dict[str, np.ndarray] = {}

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """Weights of each slice, B times (1, H, W)."""
        if self.transform is None:
            return items
        names = items.get(self.slice_key, [None] * len(drawn))
        for key in self.key_iterator(items):
            weights = [self._weights(img, name) for img, name in zip(items[key], names, strict=True)]
            items[self.weight_key] = torch.stack(weights) if isinstance(items[key], torch.Tensor) else weights
        return items

    def _weights(self, img: torch.Tensor, name: str | None) -> torch.Tensor:
        assert self.transform is not None
        if name is None:
            return self.transform(img)
        shape = tuple(img.shape[-2:])
        if name not in self.bodies:
            self.bodies[name] = np.packbits(self.transform(img)[0].numpy() == 1)
        bits = np.unpackbits(self.bodies[name], count=shape[0] * shape[1]).reshape(shape)
        return self.transform.of_mask(bits.astype(bool))

    def __getstate__(self) -> dict[str, Any]:
        """Without the masks: workers work out their own."""
        return self.__dict__ | {"bodies": {}}
