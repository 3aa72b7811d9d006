"""Training patches with a weight for each pixel: less where there is no patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ct_cncl.transforms.body import body_mask
from ct_cncl.transforms.patches import Patch, PatchPairs, open_volume


class WeightedPatchPairs(PatchPairs):
    """``PatchPairs`` whose items also hold "weight", (1, patch_size, patch_size) float32: 1 in the body, ``air_weight`` outside.

    Outside are the air around the body, the table and the scanner's padding (``body_mask`` of the label's slice, worked out
    once for each slice and process).

    Args:
        data: entries with "image" and "label".
        air_weight: from 0 to 1.
        options: of ``PatchPairs``.

    Raises:
        ValueError: a weight outside 0 to 1.
    """

    def __init__(self, data: Sequence[dict[str, Any]], *, air_weight: float, **options: Any) -> None:
        super().__init__(data, **options)
        if not 0 <= air_weight <= 1:
            raise ValueError(f"Expected an air_weight from 0 to 1, but got {air_weight}.")
        self.air_weight = air_weight
        self.bodies: dict[int, np.ndarray] = {}

    def cut(self, patch: Patch) -> dict[str, torch.Tensor]:
        """Image, label and weight at ``patch``."""
        body = self._square(self._body(patch.slice_number), patch)
        weight = np.where(body > 0, np.float32(1), np.float32(self.air_weight))
        return super().cut(patch) | {"weight": torch.from_numpy(weight)[None]}

    def _body(self, slice_number: int) -> np.ndarray:
        """(x, y) bool, kept as bits: a thousand slices of 512 x 512 take 32 MB."""
        entry, z = self.slices[slice_number]
        label = open_volume(entry["label"])
        if slice_number not in self.bodies:
            self.bodies[slice_number] = np.packbits(body_mask(label[:, :, z]))
        shape = label.shape[:2]
        return np.unpackbits(self.bodies[slice_number], count=shape[0] * shape[1]).reshape(shape)
