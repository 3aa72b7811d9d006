"""A loss weight for each pixel of a slice, lower outside the patient."""

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
    """Weight 1 in the body and ``air_weight`` outside it: in the surrounding air, the table and the scanner's padding.

    Args:
        air_weight: weight outside the body, from 0 to 1.

    Raises:
        ValueError: the weight is outside 0 to 1.
    """

    def __init__(self, air_weight: float) -> None:
        if not 0 <= air_weight <= 1:
            raise ValueError(f"Expected an air_weight from 0 to 1, but got {air_weight}.")
        self.air_weight = air_weight

    def __call__(self, img: Any) -> torch.Tensor:
        """Weights (1, H, W), float32, of a whole slice (C, H, W), HU; with several slices, those of the centre slice."""
        plane = img[len(img) // 2]
        hu = plane.detach().cpu().numpy() if isinstance(plane, torch.Tensor) else np.asarray(plane)
        return self.of_mask(body_mask(hu))

    def of_mask(self, body: np.ndarray) -> torch.Tensor:
        """Weights (1, H, W) of a body mask (H, W)."""
        return torch.where(torch.from_numpy(body), 1.0, self.air_weight)[None]


class BodyWeightd(BatchTransform):
    """Dictionary version of :class:`BodyWeight`, for whole slices: list it before the patch is cut, and cut the weights as well.

    Args:
        keys: the slice (C, H, W), HU.
        air_weight: see :class:`BodyWeight`; None makes no weights.
        weight_key: entry that receives the weights.
        slice_key: entry that holds the slice's name, a string. The mask of a named slice takes a few ms to compute, so it is
            cached as bits (32 MB for a thousand slices of 512 x 512). Without a name, nothing is cached.
        allow_missing_keys: skip keys that the item lacks.
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
        """Add the weights of each slice, (B, 1, H, W), or a list of B tensors (1, H, W)."""
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
        """Leave out the masks: each worker computes those that it needs."""
        return self.__dict__ | {"bodies": {}}
