"""Training patches with a weight for each pixel: less where there is no patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.patches.patch_pairs import Patch, PatchPairs, flipped, window


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

    def _cut_alike(self, patches: Sequence[Patch]) -> dict[str, torch.Tensor]:
        windows = torch.stack([window(self._body(patch.slice_number), patch) for patch in patches])[:, None]
        body = flipped(windows.to(self.device, torch.float32), patches)
        if body.shape[-1] != self.patch_size:  # the image has another pixel size then
            body = functional.interpolate(body, size=(self.patch_size, self.patch_size), mode="nearest-exact")
        weight = torch.where(body > 0, 1.0, self.air_weight)
        return super()._cut_alike(patches) | {"weight": weight}

    def _body(self, slice_number: int) -> torch.Tensor:
        """(x, y) uint8, kept as bits: a thousand slices of 512 x 512 take 32 MB."""
        entry, z = self.slices[slice_number]
        label = self.volumes.on_host(entry["label"])
        if slice_number not in self.bodies:
            self.bodies[slice_number] = np.packbits(body_mask(label[:, :, z]))
        shape = label.shape[:2]
        return torch.from_numpy(np.unpackbits(self.bodies[slice_number], count=shape[0] * shape[1]).reshape(shape))
