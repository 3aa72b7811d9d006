"""The slices of a prepared data set, and whole slices for validation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.volume_store import mapped_volume
from ct_cncl.transforms.patches.batch import SeededList


def neighbours(z: int, count: int, depth: int) -> list[int]:
    """Numbers of ``count`` slices around ``z`` in a volume of ``depth`` slices; beyond either end, the end slice is repeated.

    Raises:
        ValueError: ``count`` is even, so that there is no centre slice, or below 1.

    >>> neighbours(5, 3, 40), neighbours(0, 3, 40), neighbours(39, 5, 40)
    ([4, 5, 6], [0, 0, 1], [37, 38, 39, 39, 39])
    """
    if count < 1 or count % 2 == 0:
        raise ValueError(f"Expected context_slices to be an odd number, 1 or 3, but got {count}.")
    return [min(max(near, 0), depth - 1) for near in range(z - count // 2, z + count // 2 + 1)]


class SliceIndex(NamedTuple):
    """One axial slice of one entry of the data set."""

    entry: dict[str, Any]
    z: int


def all_slices(data: Sequence[dict[str, Any]]) -> list[SliceIndex]:
    """Every slice of every entry, in order; the image and label of an entry must have the same shape.

    Raises:
        DataError: the shapes of a pair differ, or ``data`` is empty.
    """
    if not data:
        raise DataError("Expected at least one volume, but the list is empty. Name a data set that has this split.")
    slices = []
    for entry in data:
        shapes = [mapped_volume(entry[key]).shape for key in ("image", "label")]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"Expected image and label of one shape, but {entry['image']} has {shapes[0]} and {entry['label']} has "
                f"{shapes[1]}. Prepare the data set again."
            )
        slices += [SliceIndex(entry, z) for z in range(shapes[0][2])]
    return slices


def spread_slices(slices: Sequence[SliceIndex], count: int) -> list[SliceIndex]:
    """Choose at most ``count`` slices: equally many from each volume, as far as it has them, evenly spaced and in order.

    A long volume gets no more than a short one while the short one has slices left: otherwise one scan with many slices
    would dominate the mean. If there are more volumes than ``count``, evenly spaced volumes are taken.

    Args:
        slices: slices of one or more volumes, grouped by volume.
        count: largest number of slices, 1 or more.

    >>> volumes = [({"label": "a"}, 40), ({"label": "b"}, 1), ({"label": "c"}, 2)]
    >>> slices = [SliceIndex(entry, z) for entry, depth in volumes for z in range(depth)]
    >>> [(entry["label"], z) for entry, z in spread_slices(slices, 6)]
    [('a', 0), ('a', 20), ('a', 39), ('b', 0), ('c', 0), ('c', 1)]
    """
    volumes = [list(group) for _, group in groupby(slices, key=lambda item: id(item.entry))]
    if len(volumes) > count:
        volumes = [volumes[n] for n in np.linspace(0, len(volumes) - 1, count).round().astype(int)]
    shares = [0] * len(volumes)
    left = min(count, sum(len(volume) for volume in volumes))
    while left:
        for n, volume in enumerate(volumes):
            if left and shares[n] < len(volume):
                shares[n] += 1
                left -= 1
    chosen = []
    for volume, share in zip(volumes, shares, strict=True):
        middle = (len(volume) - 1) / 2
        places = [middle] if share == 1 else np.linspace(0, len(volume) - 1, share)
        chosen += [volume[int(place + 0.5)] for place in places]
    return chosen


def slice_views(volume: torch.Tensor, z: int, count: int) -> torch.Tensor:
    """``count`` slices around ``z`` of a volume (x, y, z), as (count, x, y): a view, except at the ends of the volume.

    >>> slice_views(torch.arange(4.0).expand(1, 1, 4), 3, 3).flatten().tolist()
    [2.0, 3.0, 3.0]
    """
    around = neighbours(z, count, volume.shape[2])
    stack = volume.movedim(2, 0)
    whole = around[-1] - around[0] == count - 1
    return stack[around[0] : around[-1] + 1] if whole else stack[around]


class SlicePairs(Dataset):
    """Whole slices for validation, spread evenly over the volumes and within each.

    An item is the result of ``transform`` on ``{"image": y (context_slices, x, y), "label": x (1, x, y)}``, float32 HU.
    Nothing is read until the first item or the length is requested.

    Args:
        data: entries with "image" and "label".
        transform: a ``Compose`` of dictionary transforms; None leaves the slices in HU. Its random draws depend on the number
            of the slice alone.
        max_slices: largest number of slices, see :func:`spread_slices`; None takes all.
        rank: this process takes every ``world_size``-th slice, from its rank on.
        world_size: number of processes.
        context_slices: number of slices of the image, see ``PatchPairs``.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Any = None,
        *,
        max_slices: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        context_slices: int = 1,
    ) -> None:
        neighbours(0, context_slices, 1)
        if max_slices is not None and max_slices < 1:
            raise ValueError(f"Expected max_slices of at least 1 or null, but got {max_slices}.")
        self.data = data
        self.transform = transform
        self.max_slices = max_slices
        self.rank = rank
        self.world_size = world_size
        self.context_slices = context_slices
        self._made = SeededList(transform, seed=0)

    @cached_property
    def slices(self) -> list[SliceIndex]:
        """The slices of this process.

        Raises:
            DataError: the data cannot be used, see :func:`all_slices`.
        """
        slices = all_slices(self.data)
        if self.max_slices is not None:
            slices = spread_slices(slices, self.max_slices)
        return slices[self.rank :: self.world_size]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, number: int) -> dict[Hashable, Any]:
        entry, z = self.slices[number]
        label = np.asarray(mapped_volume(entry["label"])[:, :, z], dtype=np.float32)
        volume = mapped_volume(entry["image"])
        around = neighbours(z, self.context_slices, volume.shape[2])
        image = np.stack([np.asarray(volume[:, :, near], dtype=np.float32) for near in around])
        item: dict[Hashable, Any] = {"image": torch.from_numpy(image), "label": torch.from_numpy(label)[None]}
        return self._made([item], [number])[0]
