"""From a prepared data set to what a training or validation step gets: patches and whole slices, lazily read.

Every random choice about a training sample is a function of (seed, sample number) alone. Sample numbers run on from epoch
to epoch. So the order of workers, the number of processes and an interruption change nothing: a resumed run, and a run
on two processes, see the patches that one undisturbed process would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ct_cncl.transforms.datalist import DataError
from ct_cncl.transforms.hu import to_network
from ct_cncl.transforms.patch_dose import DoseDraw, RandomDose, open_noise, pair_at_dose
from ct_cncl.transforms.patch_kernel import check_range, refiltered, resampled
from ct_cncl.transforms.regions import padding_mask

BODY_THRESHOLD_HU = -500.0
"""Voxels above it count as body: lungs' vessels and walls do, air and most of the table do not."""


def open_volume(path: str) -> np.ndarray:
    """Memory-mapped stored values of an uncompressed, unscaled int16 NIfTI: (x, y, z), HU.

    Raises:
        DataError: the file is not of that kind.
    """
    state = Path(path).stat()
    return _open_volume(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _open_volume(path: str, _inode: int, _changed_ns: int) -> np.ndarray:
    """Opened once; the file's state tells a data set that was prepared anew from the one before."""
    image = nib.load(path)
    volume = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    if not isinstance(volume, np.memmap) or volume.dtype != np.dtype("<i2") or volume.ndim != 3:
        raise DataError(
            f"Expected {path} to be an uncompressed int16 volume (x, y, z), but got {volume.dtype} with shape "
            f"{volume.shape}{'' if isinstance(volume, np.memmap) else ', compressed or scaled'}. Prepare the data set with `ct-cncl prepare`."
        )
    return volume


def neighbours(z: int, count: int, depth: int) -> list[int]:
    """Numbers of ``count`` slices around ``z`` in a volume of ``depth``; beyond its ends its last slice is repeated.

    Raises:
        ValueError: an even count: there would be no centre.

    >>> neighbours(5, 3, 40), neighbours(0, 3, 40), neighbours(39, 5, 40)
    ([4, 5, 6], [0, 0, 1], [37, 38, 39, 39, 39])
    """
    if count < 1 or count % 2 == 0:
        raise ValueError(f"Expected context_slices to be an odd number, 1 or 3, but got {count}.")
    return [min(max(near, 0), depth - 1) for near in range(z - count // 2, z + count // 2 + 1)]


class SliceIndex(NamedTuple):
    """One axial slice of one entry."""

    entry: dict[str, Any]
    z: int


def all_slices(data: Sequence[dict[str, Any]]) -> list[SliceIndex]:
    """Every slice of every entry, in order; image and label of an entry must have one shape.

    Raises:
        DataError: the shapes of a pair differ, or there is no entry.
    """
    if not data:
        raise DataError("Expected at least one volume, but the list is empty. Name a data set that has this split.")
    slices = []
    for entry in data:
        shapes = [open_volume(entry[key]).shape for key in ("image", "label")]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"Expected image and label of one shape, but {entry['image']} has {shapes[0]} and {entry['label']} has "
                f"{shapes[1]}. Prepare the data set anew."
            )
        slices += [SliceIndex(entry, z) for z in range(shapes[0][2])]
    return slices


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
    """Of the kernel, see :func:`~ct_cncl.transforms.patch_kernel.refiltered`."""
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
        dose_range: lowest and highest dose fraction: every patch has its own, made from the entry's unit noise instead of
            its image; None takes the image.
        nested_dose_range: with ``dose_range``: lowest and highest dose fraction to which the target is taken first, see
            :class:`~ct_cncl.transforms.patch_dose.RandomDose`.
        zoom_range: lowest and highest factor on the number of pixels a mm: every pair has its own, log-uniform; None
            leaves the pixel size.
        sharpness_range: lowest and highest sharpness of the kernel, above -1: every pair has its own, see
            :func:`~ct_cncl.transforms.patch_kernel.refiltered`; None leaves the kernel.
        context_slices: slices of the image, odd, the label's in the centre; all have one dose, each its own noise. Beyond
            the ends of the volume its last slice is repeated.

    Raises:
        DataError: empty list, shapes that differ, slices smaller than a patch, too little unit noise.
        ValueError: numbers below 1, ranges that are none, an even number of slices.
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
        for entry in data:
            shape = open_volume(entry["label"]).shape
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

    def __len__(self) -> int:
        return self.patches_per_epoch

    def draw(self, number: int) -> Patch:
        """The place, orientation and dose of sample ``number``."""
        generator = np.random.default_rng([self.seed, number])
        side = self.patch_size
        if self.zoom is not None:
            side = max(1, round(self.patch_size / math.exp(generator.uniform(*map(math.log, self.zoom)))))
        for _ in range(self.DRAWS):
            slice_number = int(generator.integers(len(self.slices)))
            entry, z = self.slices[slice_number]
            label = open_volume(entry["label"])
            x, y = (int(generator.integers(pixels - side + 1)) for pixels in label.shape[:2])
            inside = label[x : x + side, y : y + side, z] > BODY_THRESHOLD_HU
            if inside.mean() >= self.body_fraction:
                break
        flip_x, flip_y, transpose = (bool(flip) for flip in generator.integers(2, size=3))
        patch = Patch(slice_number, x, y, flip_x, flip_y, transpose, side)
        if self.dose is not None:
            patch = patch._replace(dose=self.dose.draw(generator, len(entry["noise"])))
        if self.sharpness is not None:
            patch = patch._replace(sharpness=generator.uniform(*self.sharpness))
        return patch

    def cut(self, patch: Patch) -> dict[str, torch.Tensor]:
        """Image and label at ``patch``."""
        entry, _ = self.slices[patch.slice_number]
        if patch.dose is None:
            label = self._window(open_volume(entry["label"]), patch, 1)
            image = self._window(open_volume(entry["image"]), patch, self.context_slices)
        else:
            label = self._window(open_volume(entry["label"]), patch, self.context_slices)
            stored = [open_noise(entry["noise"][number]) for number in patch.dose.realizations]
            unit = [
                self._window(noise.values, patch, self.context_slices) * np.float32(noise.step_hu) for noise in stored
            ]
            model = entry["noise_model"]
            image, label = pair_at_dose(
                label, unit, patch.dose, noise_free=model["noise_free"], floor_hu=model["floor_hu"]
            )
        centre = len(label) // 2
        planes = torch.from_numpy(np.concatenate([image, label[centre : centre + 1]])).float()[:, None]
        planes = to_network(refiltered(resampled(planes, self.patch_size), patch.sharpness))[:, 0]
        return {"image": planes[:-1], "label": planes[-1:]}

    def _window(self, volume: np.ndarray, patch: Patch, count: int) -> np.ndarray:
        """(count, side, side) float32 of the slices of a volume (x, y, z) around the patch's, turned as it says."""
        around = neighbours(self.slices[patch.slice_number].z, count, volume.shape[2])
        return np.stack([self._square(volume[:, :, z], patch) for z in around])

    def _square(self, plane: np.ndarray, patch: Patch) -> np.ndarray:
        """(side, side) float32 of a slice (x, y), turned as ``patch`` says."""
        values = plane[patch.x : patch.x + patch.side, patch.y : patch.y + patch.side]
        values = values[:: -1 if patch.flip_x else 1, :: -1 if patch.flip_y else 1]
        return np.ascontiguousarray(values.T if patch.transpose else values, dtype=np.float32)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.cut(self.draw(number))


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


def spread_slices(slices: Sequence[SliceIndex], count: int) -> list[SliceIndex]:
    """At most ``count`` slices: as many of each volume as possible, evenly spaced within it, in order.

    A long volume gets no more than a short one while the short one has slices left: otherwise one scan with many slices
    would decide the mean. Of more volumes than ``count``, evenly spaced ones are taken.

    Args:
        slices: of one or more volumes, those of a volume together.
        count: 1 or more.

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


class SlicePairs(Dataset):
    """Whole slices for validation, spread evenly over the volumes and within each.

    Items are ``{"image": y, "label": x, "padding": where the scanner padded}``, each (1, x, y), the image (context_slices,
    x, y); image and label float32 in network units.

    Args:
        data: entries with "image" and "label".
        max_slices: at most so many slices, see :func:`spread_slices`; None takes all.
        rank: this process takes every ``world_size``-th of them, from its rank on.
        world_size: number of processes.
        context_slices: slices of the image, see :class:`PatchPairs`.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        *,
        max_slices: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        context_slices: int = 1,
    ) -> None:
        neighbours(0, context_slices, 1)
        self.context_slices = context_slices
        slices = all_slices(data)
        if max_slices is not None:
            if max_slices < 1:
                raise ValueError(f"Expected max_slices of at least 1 or null, but got {max_slices}.")
            slices = spread_slices(slices, max_slices)
        self.slices = slices[rank::world_size]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        entry, z = self.slices[number]
        label = np.asarray(open_volume(entry["label"])[:, :, z], dtype=np.float32)
        volume = open_volume(entry["image"])
        around = neighbours(z, self.context_slices, volume.shape[2])
        image = np.stack([np.asarray(volume[:, :, near], dtype=np.float32) for near in around])
        return {
            "image": to_network(torch.from_numpy(image)),
            "label": to_network(torch.from_numpy(label)[None]),
            "padding": torch.from_numpy(padding_mask(label))[None],
        }
