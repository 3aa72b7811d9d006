"""Training patches from a prepared data set: numbered samples, read lazily, with a list of transforms applied.

Every random choice about a training sample depends on (seed, sample number) alone, and sample numbers run on from epoch to
epoch. So the order of workers, the number of processes and interruptions change nothing: a resumed run, or a run on two
processes, sees the patches that one uninterrupted process would have seen. The data set only chooses the slice. Its
transforms do everything else, for a whole batch at once where they can, and with the same code on the CPU and on a GPU.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.volume_store import CACHES, VolumeStore, mapped_volume
from ct_cncl.transforms.patches.batch import SeededList, sample_words
from ct_cncl.transforms.patches.realizations import Realizations, open_noise
from ct_cncl.transforms.patches.slice_pairs import SliceIndex, all_slices, neighbours, slice_views


class PatchPairs(Dataset):
    """Training samples: each is a random slice after ``transform``.

    The transforms get ``{"image": y, "label": x, "slice": name}``. Image and label are views (context_slices, x, y) of stored
    int16 HU, with the slice itself in the centre of its neighbours; nothing is read before a patch is cut. If a transform
    draws doses (``RandLowDosed``), the item has ``"noise"`` in place of the image, which is then made from it. Sample ``k``
    depends on ``(seed, k)`` only, and ``k`` may be any number from 0 on; ``len`` is the number of patches in an epoch. The
    data are opened when they are first needed, or by :meth:`prepare`.

    Args:
        data: entries with "image" and "label", paths of uncompressed int16 NIfTI volumes.
        transform: a ``Compose`` of dictionary transforms.
        patches_per_epoch: number of patches in an epoch.
        seed: seed of every random choice.
        context_slices: number of slices of image and label, odd; beyond the ends of the volume, the end slice is repeated.
        cache: "auto", "ram", "device" or "none": where volumes are held, see
            :class:`~ct_cncl.transforms.dataset.volume_store.VolumeStore`.
        device: device on which batches are made; None is the CPU, which the workers of a loader need.

    Raises:
        ValueError: a number below 1, an even number of slices, or an unknown cache.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Any = None,
        *,
        patches_per_epoch: int,
        seed: int,
        context_slices: int = 1,
        cache: str = "none",
        device: torch.device | None = None,
    ) -> None:
        if patches_per_epoch < 1:
            raise ValueError(f"Expected patches_per_epoch of at least 1, but got {patches_per_epoch}.")
        neighbours(0, context_slices, 1)  # refuses an even number now, not at the first patch
        if cache not in CACHES:
            raise ValueError(f"Expected cache to be one of {', '.join(CACHES)}, but got {cache!r}.")
        self.data = data
        self.transform = transform
        self.patches_per_epoch = patches_per_epoch
        self.seed = seed
        self.context_slices = context_slices
        self.cache = cache
        self.device = torch.device("cpu") if device is None else torch.device(device)
        self._made = SeededList(transform, seed=seed, device=self.device)

    def prepare(self) -> None:
        """Open and check the data now, not at the first step.

        Raises:
            DataError: the list is empty, shapes differ, slices are smaller than a patch, or noise realizations are missing.
        """
        assert self.volumes

    @cached_property
    def slices(self) -> list[SliceIndex]:
        """Every slice of every entry."""
        return all_slices(self.data)

    @property
    def realizations_needed(self) -> int:
        """Number of noise realizations that the transforms need for each scan."""
        return max((getattr(one, "realizations_needed", 0) for one in self._made.transforms), default=0)

    @cached_property
    def volumes(self) -> VolumeStore:
        """The volumes, checked."""
        needed = self.realizations_needed
        side = max((getattr(getattr(one, "transform", None), "side", 0) for one in self._made.transforms), default=0)
        used: list[str] = []
        for entry in self.data:
            used += [entry["label"], *([entry["image"]] if not needed else entry.get("noise", []))]
            shape = mapped_volume(entry["label"]).shape
            if needed:
                check_noise(entry, shape, needed)
            if min(shape[:2]) < side:
                raise DataError(
                    f"Expected slices of at least {side} x {side} pixels (patch_size, zoom_range), but {entry['label']} "
                    f"has {shape[0]} x {shape[1]}. Lower patch_size."
                )
        assert self.slices  # checks that image and label have the same shape
        return VolumeStore(used, cache=self.cache, device=self.device)

    def __len__(self) -> int:
        return self.patches_per_epoch

    def slice_number(self, number: int) -> int:
        """Index in :attr:`slices` of the slice of sample ``number``."""
        return sample_words(self.seed, number)[1] % len(self.slices)

    def source(self, number: int) -> dict[Hashable, Any]:
        """The item that the transforms get for sample ``number``."""
        volumes = self.volumes
        entry, z = self.slices[self.slice_number(number)]
        item: dict[Hashable, Any] = {"label": slice_views(volumes[entry["label"]], z, self.context_slices)}
        if not self.realizations_needed:
            item["image"] = slice_views(volumes[entry["image"]], z, self.context_slices)
        else:
            model = entry["noise_model"]
            item["noise"] = Realizations(
                [slice_views(volumes[path], z, self.context_slices) for path in entry["noise"]],
                [open_noise(path).step_hu for path in entry["noise"]],
                noise_free=model["noise_free"],
                floor_hu=model["floor_hu"],
            )
        item["slice"] = f"{entry['label']} {z}"
        return item

    def __getitem__(self, number: int) -> dict[Hashable, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[Hashable, Any]]:
        """Make several samples at once; torch's DataLoader calls this method."""
        numbers = list(numbers)
        return self._made([self.source(number) for number in numbers], numbers)


def check_noise(entry: dict[str, Any], shape: tuple[int, ...], needed: int) -> None:
    """Refuse an entry with fewer than ``needed`` noise realizations, or with one whose shape is not the label's.

    Raises:
        DataError: names the entry or the file.
    """
    paths = entry.get("noise", [])
    if len(paths) < needed:
        raise DataError(
            f"Expected {needed} or more noise realizations for {entry.get('source', entry['label'])}, because dose_range is "
            f"set, but got {len(paths)}. Prepare simulated data with --realizations {needed}, or set dose_range to null."
        )
    for path in paths:
        found = open_noise(path).values.shape
        if found != shape:
            raise DataError(
                f"Expected noise realizations with the label's shape {shape}, but {path} has {found}. Prepare the data set again."
            )


class SampleNumbers(Sampler[int]):
    """Numbers of the samples that this process takes in an epoch: every ``world_size``-th, from its rank on.

    Batches of B on each of W processes then together hold the samples of one process's batch of B * W.

    Args:
        patches_per_epoch: samples in an epoch over all processes; a remainder that does not divide evenly is left out.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(self, patches_per_epoch: int, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"Expected a rank from 0 to {world_size - 1}, but got {rank}.")
        if patches_per_epoch < world_size:
            raise ValueError(
                f"Expected at least one patch per process in an epoch, but got {patches_per_epoch} for {world_size} processes."
            )
        self.patches_per_epoch = patches_per_epoch
        self.rank = rank
        self.world_size = world_size
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.patches_per_epoch // self.world_size

    def __iter__(self) -> Iterator[int]:
        first = (self.epoch - 1) * self.patches_per_epoch
        for step in range(len(self)):
            yield first + step * self.world_size + self.rank
