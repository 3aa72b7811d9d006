"""Transforms that take one item or a batch, and how a list of transforms is applied to a batch.

What is drawn for sample k is a function of (seed, k) alone: before each sample every random transform of the list is seeded
by (seed, k) and its own name, so that removing one transform changes nothing of what the others draw. Transforms of this
package then work on the whole batch; any other transform works on its items one by one.
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
"""A batch: tensors (B, C, H, W), or lists of B things that do not stack."""


class BatchTransform(MapTransform):
    """A dictionary transform that says apart what it draws for one item and what it makes of a batch.

    An item's images are (C, H, W), a batch's (B, C, H, W) or a list of B images (C, H, W) of their own sizes. Called with a
    batch it draws for each item in turn. What is not a tensor (arrays, MetaTensors) comes back as what it was.

    Args:
        keys: images.
        allow_missing_keys: skip keys that are not there.
        extra_keys: what else of an item is looked at.
    """

    def __init__(
        self, keys: KeysCollection, allow_missing_keys: bool = False, *, extra_keys: Sequence[Hashable] = ()
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.extra_keys = tuple(extra_keys)

    @property
    def fixed(self) -> bool:
        """Whether nothing is drawn, as it is set up."""
        return not isinstance(self, Randomizable)

    def draw(self, item: Mapping[Hashable, Any]) -> Any:
        """What is drawn for one item; None where nothing is random."""
        return None

    def apply(self, items: Items, drawn: Sequence[Any]) -> Items:
        """A batch, changed by what was drawn for each of its items."""
        raise NotImplementedError

    def is_batch(self, data: Mapping[Hashable, Any]) -> bool:
        """Whether ``data`` is a batch and not one item."""
        first = next(iter(self.key_iterator(dict(data))), None)
        return first is not None and (isinstance(data[first], list) or data[first].ndim == 4)

    def __call__(self, data: Mapping[Hashable, Any]) -> Items:
        """One item, or a batch, changed."""
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
    """Two random numbers of 32 bits that belong to sample ``number``: one seeds its transforms, one chooses its slice."""
    first, second = np.random.SeedSequence([seed, number]).generate_state(2)
    return int(first), int(second)


def each(items: Items) -> Iterator[Items]:
    """The items of a batch, one after the other: views of it."""
    count = len(next(iter(items.values())))
    for number in range(count):
        yield {key: values[number] for key, values in items.items()}


def stacked(values: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) of B images of one size; a batch itself."""
    return values if isinstance(values, torch.Tensor) else torch.stack(list(values))


def collated(items: Sequence[Mapping[Hashable, Any]]) -> Items:
    """A batch of items; images of one size are stacked, everything else is a list."""
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
        seed: of every random choice.
        device: where batches are moved to as soon as they are one tensor; None leaves them where they are.
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
            )  # seeded for each sample: making one asks the system for entropy
            seen[name] += 1

    def __call__(self, items: Sequence[Mapping[Hashable, Any]], numbers: Sequence[int]) -> list[Items]:
        """Samples of these numbers made of ``items``.

        Raises:
            ValueError: a transform that makes several items of one.
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
                f"Expected a transform that makes one item of one, but {type(one).__name__} gave {type(made).__name__}. Give it "
                "num_samples=1, or remove it."
            )
        return made

    def _seed(self, place: int, base: int) -> None:
        one, state = self.transforms[place], self.states[place]
        if isinstance(one, Randomizable):
            state.seed(base ^ self.streams[place])
            one.set_random_state(state=state)
