"""Transforms that take one item or a batch, and the code that applies a list of transforms to a batch.

The random draws for sample k depend on (seed, k) alone: before each sample, every random transform of the list is seeded
from (seed, k) and its own name, so removing one transform does not change what the others draw. Transforms of this package
then work on the whole batch; any other transform works on its items one by one.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Randomizable, apply_transform
from monai.utils import convert_to_dst_type

Items = dict[Hashable, Any]
"""A batch: tensors (B, C, H, W), or lists of B values that cannot be stacked."""


class BatchTransform(MapTransform):
    """A dictionary transform that separates drawing for one item (:meth:`draw`) from changing a batch (:meth:`apply`).

    An item's images are (C, H, W); a batch's are (B, C, H, W), or a list of B images (C, H, W) of different sizes. Called
    with a batch, it draws for each item in turn. Arrays and MetaTensors of one item come back in their own type.

    Args:
        keys: entries with images.
        allow_missing_keys: skip keys that the item lacks.
        extra_keys: other entries of an item that the transform reads.
    """

    def __init__(
        self, keys: KeysCollection, allow_missing_keys: bool = False, *, extra_keys: Sequence[Hashable] = ()
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.extra_keys = tuple(extra_keys)

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to draw."""
        return not isinstance(self, Randomizable)

    def draw(self, item: Mapping[Hashable, Any]) -> Any:
        """Draw the random parameters of one item; None if nothing is random."""
        return None

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """Change a batch according to the parameters drawn for each of its items."""
        raise NotImplementedError

    def is_batch(self, data: Mapping[Hashable, Any]) -> bool:
        """Whether ``data`` is a batch and not one item."""
        first = next(iter(self.key_iterator(dict(data))), None)
        return first is not None and (isinstance(data[first], list) or data[first].ndim == 4)

    def __call__(self, data: Mapping[Hashable, Any]) -> Items:
        """Draw for one item or each item of a batch, and return it changed."""
        items = dict(data)
        if self.is_batch(items):
            return self.apply(items, [self.draw(item) for item in each(items)])
        drawn = self.draw(items)
        used = [key for key in (*self.keys, *self.extra_keys) if key in items]
        plain = {key: [_plain(items[key])] for key in used}
        changed = self.apply(dict(plain), [drawn])
        rest = {key: value for key, value in items.items() if key not in plain}
        return rest | {
            key: items[key] if value is plain.get(key) else _like(value[0], items.get(key))
            for key, value in changed.items()
        }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _like(value: Any, before: Any) -> Any:
    if isinstance(value, torch.Tensor) and isinstance(before, (np.ndarray, MetaTensor)):
        return convert_to_dst_type(value, before, dtype=value.dtype)[0]
    return value


@lru_cache(maxsize=1024)
def sample_words(seed: int, number: int) -> tuple[int, int]:
    """Two random 32-bit numbers for sample ``number``: the first seeds its transforms, the second chooses its slice."""
    first, second = np.random.SeedSequence([seed, number]).generate_state(2)
    return int(first), int(second)


def each(items: Items) -> Iterator[Items]:
    """Yield the items of a batch, as views of it."""
    count = len(next(iter(items.values())))
    for number in range(count):
        yield {key: values[number] for key, values in items.items()}


def stacked(values: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """Stack B images (C, H, W) of one size to (B, C, H, W); a tensor is already a batch and comes back as it is."""
    return values if isinstance(values, torch.Tensor) else torch.stack(list(values))


def collated(items: Sequence[Mapping[Hashable, Any]]) -> Items:
    """Collect items into a batch: images of one size are stacked, everything else becomes a list."""
    batch: Items = {}
    for key in items[0]:
        values = [item[key] for item in items]
        first = values[0]
        alike = isinstance(first, torch.Tensor) and all(
            isinstance(value, torch.Tensor) and value.shape == first.shape and value.dtype == first.dtype
            for value in values
        )
        batch[key] = torch.stack([_plain(value) for value in values]) if alike else values
    return batch


class SeededList:
    """The transforms of a ``Compose``, run for numbered samples.

    Args:
        transform: a ``Compose`` or one transform; None changes nothing.
        seed: seed of every random choice.
        device: device to which a batch is moved as soon as it is one tensor; None leaves it where it is.
    """

    def __init__(self, transform: Any, *, seed: int, device: torch.device | None = None) -> None:
        if isinstance(transform, Compose):
            self.transforms: list[Any] = list(transform.flatten().transforms)
        else:
            self.transforms = [] if transform is None else [transform]
        self.seed = seed
        self.device = device
        seen: Counter[str] = Counter()
        self.streams = []
        self.states: list[np.random.RandomState] = []
        for one in self.transforms:
            name = type(one).__name__
            self.streams.append(zlib.crc32(f"{name} {seen[name]}".encode()))
            self.states.append(
                np.random.RandomState(0)
            )  # seeded again for each sample: making a new one reads entropy from the system, even with a seed
            seen[name] += 1

    def __call__(self, items: Sequence[Mapping[Hashable, Any]], numbers: Sequence[int]) -> list[Items]:
        """Make the samples with these numbers from ``items``.

        Raises:
            ValueError: a transform returns several items for one.
        """
        bases = [sample_words(self.seed, number)[0] for number in numbers]
        batch: Items | None = None
        single: list[Any] = list(items)
        for place, one in enumerate(self.transforms):
            if isinstance(one, BatchTransform):
                batch = {key: [item[key] for item in single] for key in single[0]} if batch is None else batch
                drawn = [None] * len(bases) if one.fixed else self._drawn(place, bases, batch)
                batch = self._placed(one.apply(batch, drawn))
            else:
                single = list(each(batch)) if batch is not None else single
                single = [self._one_by_one(place, base, item) for base, item in zip(bases, single, strict=True)]
                batch = collated(single)
        return list(each(batch)) if batch is not None else single

    def _placed(self, batch: Items) -> Items:
        if self.device is None:
            return batch
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }

    def _drawn(self, place: int, bases: Sequence[int], batch: Items) -> list[Any]:
        drawn = []
        for base, item in zip(bases, each(batch), strict=True):
            self._seed(place, base)
            drawn.append(self.transforms[place].draw(item))
        return drawn

    def _one_by_one(self, place: int, base: int, item: Any) -> Any:
        one = self.transforms[place]
        self._seed(place, base)
        made = apply_transform(one, item)
        if not isinstance(made, Mapping):
            raise ValueError(
                f"Expected a transform that returns one item for each item, but {type(one).__name__} returned "
                f"{type(made).__name__}. Give it num_samples=1, or remove it."
            )
        return made

    def _seed(self, place: int, base: int) -> None:
        one, state = self.transforms[place], self.states[place]
        if isinstance(one, Randomizable):
            state.seed(base ^ self.streams[place])
            one.set_random_state(state=state)
