"""From a prepared data set to training patches: numbered samples, read lazily, with the list of transforms applied.

Every random choice about a training sample is a function of (seed, sample number) alone. Sample numbers run on from epoch
to epoch. So the order of workers, the number of processes and an interruption change nothing: a resumed run, and a run
on two processes, see the patches that one undisturbed process would have seen. The data set only chooses the slice; all
else about a patch is done by its transforms, for a whole batch at once where they can, by the same code on the CPU and on a GPU.
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
    """Training samples: a random slice each, and what ``transform`` makes of it.

    What the transforms get is ``{"image": y, "label": x, "slice": its name}``: image and label are views (context_slices, x, y) of
    stored int16 HU, the slice itself in the centre of its neighbours; nothing is read before a patch is cut. Where a transform
    draws doses (``RandLowDosed``), there is ``"noise"`` in the place of the image, which is made from it. Sample ``k`` depends on ``(seed, k)`` only; ``k`` may be any number
    from 0 on; ``len`` is the number of patches in an epoch. The data set itself is looked at when it is first needed, or by
    :meth:`prepare`.

    Args:
        data: entries with "image" and "label", paths of uncompressed int16 NIfTI volumes.
        transform: a ``Compose`` of dictionary transforms.
        patches_per_epoch: what counts as one epoch.
        seed: of every random choice.
        context_slices: slices of image and label, odd; beyond the ends of the volume its last slice is repeated.
        cache: "auto", "ram", "device" or "none": where volumes are held, see
            :class:`~ct_cncl.transforms.dataset.volume_store.VolumeStore`.
        device: where batches are made and left; the CPU where not given. Workers of a loader need the CPU.

    Raises:
        ValueError: numbers below 1, an even number of slices, an unknown cache.
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
        neighbours(0, context_slices, 1)  # refuses an even number here, not in the first patch
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
        """Look at the data now, not in the first step.

        Raises:
            DataError: empty list, shapes that differ, slices smaller than a patch, too few noise realizations.
        """
        assert self.volumes

    @cached_property
    def slices(self) -> list[SliceIndex]:
        """Every slice of every entry."""
        return all_slices(self.data)

    @property
    def realizations_needed(self) -> int:
        """Noise realizations that the transforms need of each scan."""
        return max((getattr(one, "realizations_needed", 0) for one in self._made.transforms), default=0)

    @cached_property
    def volumes(self) -> VolumeStore:
        """The volumes, once they have been checked."""
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
        assert self.slices  # image and label of one shape
        return VolumeStore(used, cache=self.cache, device=self.device)

    def __len__(self) -> int:
        return self.patches_per_epoch

    def slice_number(self, number: int) -> int:
        """The slice of sample ``number``, its place in :attr:`slices`."""
        return sample_words(self.seed, number)[1] % len(self.slices)

    def source(self, number: int) -> dict[Hashable, Any]:
        """What the transforms get for sample ``number``."""
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
        """Several samples at once, as torch's DataLoader asks for them."""
        numbers = list(numbers)
        return self._made([self.source(number) for number in numbers], numbers)


def check_noise(entry: dict[str, Any], shape: tuple[int, ...], needed: int) -> None:
    """Refuse an entry without ``needed`` noise realizations of its label's shape.

    Raises:
        DataError: naming the entry.
    """
    paths = entry.get("noise", [])
    if len(paths) < needed:
        raise DataError(
            f"Expected {needed} or more noise realizations for {entry.get('source', entry['label'])}, which dose_range "
            f"needs, but got {len(paths)}. Prepare simulated data with --realizations {needed}, or set dose_range to null."
        )
    for path in paths:
        found = open_noise(path).values.shape
        if found != shape:
            raise DataError(
                f"Expected noise realizations of the label's shape {shape}, but {path} has {found}. Prepare the data set again."
            )


class SampleNumbers(Sampler[int]):
    """Numbers of the samples that this process takes in an epoch: every ``world_size``-th, from its rank on.

    A batch of B on each of W processes then holds the samples that one process would have in a batch of B * W.

    Args:
        patches_per_epoch: samples in an epoch over all processes; a rest that does not divide evenly is left out.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, patches_per_epoch: int, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"Expected a rank from 0 to {world_size - 1}, but got {rank}.")
        if patches_per_epoch < world_size:
            raise ValueError(
                f"Expected at least one patch a process in an epoch, but got {patches_per_epoch} for {world_size} processes."
            )
        self.patches_per_epoch = patches_per_epoch
        self.rank = rank
        self.world_size = world_size
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.patches_per_epoch // self.world_size

    def __iter__(self) -> Iterator[int]:
        first = (self.epoch - 1) * self.patches_per_epoch
        for step in range(len(self)):
            yield first + step * self.world_size + self.rank
