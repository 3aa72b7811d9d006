"""From a prepared data set to what a training step gets: batches of patches, lazily read.

Every random choice about a training sample is a function of (seed, sample number) alone. Sample numbers run on from epoch
to epoch. So the order of workers, the number of processes and an interruption change nothing: a resumed run, and a run
on two processes, see the patches that one undisturbed process would have seen. What is drawn is drawn one by one on the
host; cutting, turning, noise and filters are done for a whole batch, by the same code on the CPU and on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import to_network
from ct_cncl.transforms.dataset.volume_store import VolumeStore, mapped_volume
from ct_cncl.transforms.patches.dose import DoseDraw, RandomDose, open_noise, pairs_at_doses
from ct_cncl.transforms.patches.kernel import check_range, refiltered, resampled
from ct_cncl.transforms.patches.slice_pairs import SliceIndex, SlicePairs, all_slices, neighbours, spread_slices

__all__ = [
    "Patch",
    "PatchPairs",
    "SampleNumbers",
    "SliceIndex",
    "SlicePairs",
    "all_slices",
    "mapped_volume",
    "neighbours",
    "spread_slices",
]

BODY_THRESHOLD_HU = -500.0
"""Voxels above it count as body: lungs' vessels and walls do, air and most of the table do not."""


class Patch(NamedTuple):
    """Where a training patch lies and how it is turned; drawn apart from being cut."""

    slice_number: int
    x: int
    y: int
    flip_x: bool
    flip_y: bool
    transpose: bool
    side: int
    """Pixels of the scan a side; more or fewer than a patch has change the pixel size."""
    sharpness: float = 0.0
    """Of the kernel, see :func:`~ct_cncl.transforms.patches.kernel.refiltered`."""
    dose: DoseDraw | None = None


class PatchPairs(Dataset):
    """Training patches cut from random places of the data set's slices, flipped and transposed at random.

    Item ``k`` is ``{"image": y, "label": x}``, (context_slices, patch_size, patch_size) and (1, patch_size, patch_size)
    float32 in network units; it depends on ``(seed, k)`` only. ``k`` may be any number from 0 on; ``len`` is the number of
    patches in an epoch.

    Args:
        data: entries with "image" and "label", paths of uncompressed int16 NIfTI volumes.
        patch_size: side in pixels; slices smaller than that are refused.
        patches_per_epoch: what counts as one epoch.
        seed: of every random choice.
        body_fraction: a place is drawn again, up to 8 times, until this share of its label lies above -500 HU.
        dose_range: lowest and highest dose fraction: every patch has its own, made from the entry's noise realization instead of
            its image; None takes the image.
        nested_dose_range: with ``dose_range``: lowest and highest dose fraction to which the target is taken first, see
            :class:`~ct_cncl.transforms.patches.dose.RandomDose`.
        zoom_range: lowest and highest factor on the number of pixels a mm: every pair has its own, log-uniform; None
            leaves the pixel size.
        sharpness_range: lowest and highest sharpness of the kernel, above -1: every pair has its own, see
            :func:`~ct_cncl.transforms.patches.kernel.refiltered`; None leaves the kernel.
        context_slices: slices of the image, odd, the label's in the centre; all have one dose, each its own noise. Beyond
            the ends of the volume its last slice is repeated.
        cache: "auto", "ram", "device" or "none": where volumes are held, see
            :class:`~ct_cncl.transforms.dataset.volume_store.VolumeStore`.
        device: where batches are made and left; the CPU where not given. Workers of a loader need the CPU.

    Raises:
        DataError: empty list, shapes that differ, slices smaller than a patch, too little noise realization.
        ValueError: numbers below 1, ranges that are none, an even number of slices, an unknown cache.
    """

    DRAWS = 8

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        *,
        patch_size: int,
        patches_per_epoch: int,
        seed: int,
        body_fraction: float = 0.1,
        dose_range: Sequence[float] | None = None,
        nested_dose_range: Sequence[float] | None = None,
        zoom_range: Sequence[float] | None = None,
        sharpness_range: Sequence[float] | None = None,
        context_slices: int = 1,
        cache: str = "none",
        device: torch.device | None = None,
    ) -> None:
        if patch_size < 1 or patches_per_epoch < 1:
            raise ValueError(
                f"Expected patch_size and patches_per_epoch of at least 1, but got {patch_size} and {patches_per_epoch}."
            )
        if dose_range is None and nested_dose_range is not None:
            raise ValueError(f"Expected a dose_range beside nested_dose_range {list(nested_dose_range)}, but got null.")
        self.dose = None if dose_range is None else RandomDose(dose_range, nested_dose_range)
        self.zoom = None if zoom_range is None else check_range("zoom_range", zoom_range, above=0)
        self.sharpness = None if sharpness_range is None else check_range("sharpness_range", sharpness_range, above=-1)
        neighbours(0, context_slices, 1)  # refuses an even number here, not in the first patch
        self.context_slices = context_slices
        largest = patch_size if self.zoom is None else max(1, round(patch_size / self.zoom[0]))
        self.slices = all_slices(data)
        used: list[str] = []
        for entry in data:
            used += [entry["label"], *([entry["image"]] if self.dose is None else entry.get("noise", []))]
            shape = mapped_volume(entry["label"]).shape
            if self.dose is not None:
                self.dose.check(entry, shape)
            if min(shape[:2]) < largest:
                raise DataError(
                    f"Expected slices of at least {largest} x {largest} pixels (patch_size, zoom_range), but {entry['label']} "
                    f"has {shape[0]} x {shape[1]}. Lower patch_size."
                )
        self.patch_size = patch_size
        self.patches_per_epoch = patches_per_epoch
        self.seed = seed
        self.body_fraction = body_fraction
        self.device = torch.device("cpu") if device is None else torch.device(device)
        self.volumes = VolumeStore(used, cache=cache, device=self.device)

    def __len__(self) -> int:
        return self.patches_per_epoch

    def draw(self, number: int) -> Patch:
        """The place, orientation and dose of sample ``number``."""
        generator = np.random.default_rng([self.seed, number])
        side = self.patch_size
        if self.zoom is not None:
            side = max(
                1, round(self.patch_size / math.exp(generator.uniform(math.log(self.zoom[0]), math.log(self.zoom[1]))))
            )
        for _ in range(self.DRAWS):
            slice_number = int(generator.integers(len(self.slices)))
            entry, z = self.slices[slice_number]
            label = self.volumes.on_host(entry["label"])
            x, y = (int(generator.integers(pixels - side + 1)) for pixels in label.shape[:2])
            inside = label[x : x + side, y : y + side, z] > BODY_THRESHOLD_HU
            if np.count_nonzero(inside) / inside.size >= self.body_fraction:
                break
        flip_x, flip_y, transpose = (bool(flip) for flip in generator.integers(2, size=3))
        patch = Patch(slice_number, x, y, flip_x, flip_y, transpose, side)
        if self.dose is not None:
            patch = patch._replace(dose=self.dose.draw(generator, len(entry["noise"])))
        if self.sharpness is not None:
            patch = patch._replace(sharpness=generator.uniform(*self.sharpness))
        return patch

    def cut(self, patches: Sequence[Patch]) -> dict[str, torch.Tensor]:
        """Images (B, context_slices, patch_size, patch_size) and labels (B, 1, patch_size, patch_size) at ``patches``."""
        alike: dict[int, list[int]] = {}
        for place, patch in enumerate(patches):
            alike.setdefault(patch.side, []).append(place)
        parts = [self._cut_alike([patches[place] for place in places]) for places in alike.values()]
        if len(parts) == 1:
            return parts[0]
        order = np.argsort([place for places in alike.values() for place in places]).tolist()
        return {key: torch.cat([part[key] for part in parts])[order] for key in parts[0]}

    def _cut_alike(self, patches: Sequence[Patch]) -> dict[str, torch.Tensor]:
        """:meth:`cut` of patches that are all cut with one side."""
        entries = [self.slices[patch.slice_number].entry for patch in patches]
        width = self.context_slices
        if self.dose is None:
            images = self._windows([entry["image"] for entry in entries], patches, width)
            labels = self._windows([entry["label"] for entry in entries], patches, 1)
        else:
            draws = [patch.dose for patch in patches if patch.dose is not None]
            stored = self._windows([entry["label"] for entry in entries], patches, width)
            unit = []
            for which in range(len(draws[0].realizations)):
                paths = [entry["noise"][draw.realizations[which]] for entry, draw in zip(entries, draws)]
                steps = torch.tensor([open_noise(path).step_hu for path in paths]).to(self.device)
                unit.append(self._windows(paths, patches, width) * steps[:, None, None, None])
            images, labels = pairs_at_doses(stored, unit, draws, [entry["noise_model"] for entry in entries])
            labels = labels[:, width // 2 : width // 2 + 1]
        planes = resampled(torch.cat([images, labels], dim=1), self.patch_size)
        if self.sharpness is not None:
            sharpness = torch.tensor([patch.sharpness for patch in patches]).to(self.device)
            planes = refiltered(planes, sharpness[:, None, None, None])
        planes = to_network(planes)
        return {"image": planes[:, :-1], "label": planes[:, -1:]}

    def _windows(self, paths: Sequence[str], patches: Sequence[Patch], count: int) -> torch.Tensor:
        """(B, count, side, side) float32 of ``count`` slices of a volume around each patch's, turned as the patches say."""
        windows = []
        for path, patch in zip(paths, patches, strict=True):
            volume = self.volumes[path]
            around = neighbours(self.slices[patch.slice_number].z, count, volume.shape[2])
            windows += [window(volume, patch, z) for z in around]
        stacked = torch.stack(windows).to(self.device, non_blocking=True).unflatten(0, (-1, count))
        return flipped(stacked, patches).float()

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several items at once, as torch's DataLoader asks for them: views of one batch."""
        batch = self.cut([self.draw(number) for number in numbers])
        return [{key: values[place] for key, values in batch.items()} for place in range(len(numbers))]


def window(volume: torch.Tensor, patch: Patch, z: int = 0) -> torch.Tensor:
    """The view (side, side) of a volume (x, y, z) or of a slice (x, y) at a patch's place; transposed, not yet flipped."""
    along_x, along_y = volume.stride()[:2]
    start = volume.storage_offset() + patch.x * along_x + patch.y * along_y + (z * volume.stride(2) if z else 0)
    strides = (along_y, along_x) if patch.transpose else (along_x, along_y)
    return volume.as_strided((patch.side, patch.side), strides, start)


def flipped(windows: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Windows (B, C, side, side) of :func:`window`, flipped as their patches say."""
    flips = [(patch.flip_y, patch.flip_x) if patch.transpose else (patch.flip_x, patch.flip_y) for patch in patches]
    rows, columns = torch.tensor(flips).to(windows.device).T[..., None, None, None]
    windows = torch.where(rows, windows.flip(-2), windows)
    return torch.where(columns, windows.flip(-1), windows)


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
