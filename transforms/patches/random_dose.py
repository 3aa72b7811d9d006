"""A random lower dose from stored noise realizations, for the training loop: one multiplication and addition per patch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked
from ct_cncl.transforms.patches.realizations import Realizations
from ct_cncl.transforms.physics.noise_realizations import (
    SCANNER_FLOOR_HU,
    check_dose_range,
    cut_off,
    dose_between,
    noise_factor,
)


class DoseDraw(NamedTuple):
    """The doses of one training pair, and the noise realizations from which it is made."""

    fraction: float
    """Dose fraction of the image relative to its target."""
    target_fraction: float
    """Dose fraction of the target relative to the stored scan; 1 without nesting."""
    realizations: tuple[int, ...]
    """Number of the image's realization and, with nesting, of the target's; never the same."""


def dose_factors(draw: DoseDraw, *, noise_free: bool) -> tuple[float, float]:
    """Factors on the noise realizations of the image and of its target; the latter is 0 without nesting.

    >>> dose_factors(DoseDraw(0.5, 0.25, (0, 1)), noise_free=True)
    (2.0, 2.0)
    """
    if len(draw.realizations) == 1:
        return noise_factor(draw.fraction, of=draw.target_fraction, noise_free=noise_free), 0.0
    target = noise_factor(draw.target_fraction, noise_free=noise_free)
    return noise_factor(draw.fraction, of=draw.target_fraction), target  # by then, the target has noise


def pairs_at_doses(
    labels: torch.Tensor,
    unit: Sequence[torch.Tensor],
    draws: Sequence[DoseDraw],
    *,
    noise_free: Sequence[bool],
    floor_hu: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make images and targets from scans and noise realizations.

    The image is ``x' + sqrt((1 - a) / (a b)) n1``. Its target x' is the stored scan x (b = 1) or, with nesting, the scan at a
    lower dose b, ``x' = x + sqrt((1 - b) / b) n2``: the noise level then varies from patch to patch, while the ratio of
    image noise to target noise follows from a, as in real pairs. A noise-free scan (phantom) gets the full noise of its
    dose instead, ``sqrt(1 / a)`` without nesting and ``sqrt(1 / b)`` for a nested target.

    Args:
        labels: the stored scans, (B, ...), HU.
        unit: the first realizations drawn and, with nesting, the second ones, each of the shape of ``labels``, HU.
        draws: the doses of the B pairs.
        noise_free: for each scan, whether it has no noise itself.
        floor_hu: for each scan, the lowest value that the scanner stores, HU; -inf cuts nothing off.

    Returns:
        (images, targets), HU.

    >>> scan, noise = torch.zeros(1, 2), [torch.tensor([[1.0, -1.0]]), torch.tensor([[10.0, 10.0]])]
    >>> draw = DoseDraw(0.5, 0.5, (0, 1))
    >>> image, target = pairs_at_doses(scan, noise, [draw], noise_free=[False], floor_hu=[-1024.0])
    >>> [round(float(value), 3) for value in image[0]], target.tolist()
    ([11.414, 8.586], [[10.0, 10.0]])
    """
    rows = [(*dose_factors(draw, noise_free=free), floor) for draw, free, floor in zip(draws, noise_free, floor_hu)]
    shape = (3, len(draws), *[1] * (labels.ndim - 1))
    first, second, floor = torch.tensor(rows, dtype=labels.dtype).T.reshape(shape).to(labels.device)
    target = labels + second * unit[1] if len(unit) > 1 else labels
    return cut_off(target + first * unit[0], labels, floor), cut_off(target, labels, floor)


class RandLowDose(RandomizableTransform):
    """A random lower dose from stored noise realizations: one of them, scaled to the dose and added.

    It costs one multiplication and one addition, cheap enough for the training loop, and is exact where electronic noise is
    negligible. :mod:`ct_cncl.transforms.physics.noise_realizations` makes the realizations and says where it is not.

    Args:
        dose_range: lowest and highest dose fraction, above 0 and up to 1; drawn log-uniformly.
        nested_dose_range: the same for the target, to which this dose is relative, see :func:`pairs_at_doses`; None does not nest.
        prob: probability that the dose is lowered at all.
        floor_hu: lowest value that the scanner stores, HU; None cuts nothing off.
        noise_free: whether the images have no noise themselves.

    Raises:
        ValueError: a range is invalid.
    """

    def __init__(
        self,
        dose_range: Sequence[float],
        *,
        nested_dose_range: Sequence[float] | None = None,
        prob: float = 1.0,
        floor_hu: float | None = SCANNER_FLOOR_HU,
        noise_free: bool = False,
    ) -> None:
        super().__init__(prob)
        self.dose_range = check_dose_range(dose_range)
        self.nested_dose_range = None if nested_dose_range is None else check_dose_range(nested_dose_range)
        self.floor_hu = floor_hu
        self.noise_free = noise_free
        self.drawn = DoseDraw(1.0, 1.0, (0,))
        """The doses and realizations last drawn."""

    @property
    def dose_fraction(self) -> float:
        """Dose fraction of the image relative to its target, as last drawn."""
        return self.drawn.fraction

    @property
    def realization(self) -> int:
        """Number of the image's realization, from 0 on, as last drawn."""
        return self.drawn.realizations[0]

    @property
    def realizations_needed(self) -> int:
        """Number of realizations that a scan must have."""
        return 1 if self.nested_dose_range is None else 2

    def randomize(self, data: int) -> None:
        """Draw whether the dose is lowered, to which fraction, and with which of ``data`` realizations."""
        super().randomize(None)
        fraction = dose_between(self.dose_range, self.R.uniform())
        if self.nested_dose_range is None:
            self.drawn = DoseDraw(fraction, 1.0, (int(self.R.randint(data)),))
            return
        target = dose_between(self.nested_dose_range, self.R.uniform())
        chosen = self.R.choice(data, 2, replace=False)
        self.drawn = DoseDraw(fraction, target, (int(chosen[0]), int(chosen[1])))

    def __call__(self, img: NdarrayOrTensor, noise: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Take the image to the drawn dose.

        Args:
            img: (1, x, y) or (1, x, y, z), HU, at full dose.
            noise: (realizations, x, y) or (realizations, x, y, z), HU.
            randomize: draw first; False uses the last draw.

        Returns:
            The image, float32, with the type, shape, metadata and device of ``img``; ``img`` itself if the dose is not lowered.

        Raises:
            ValueError: the shapes do not match, or there are too few realizations.
        """
        _check_shapes(img, noise, self.realizations_needed)
        if randomize:
            self.randomize(noise.shape[0])
        if not self._do_transform:
            return img
        clean = convert_to_tensor(img, track_meta=False, dtype=torch.float32)
        stored = convert_to_tensor(noise, track_meta=False)
        unit = [stored[number][None, None].to(clean) for number in self.drawn.realizations]
        floor = -float("inf") if self.floor_hu is None else self.floor_hu
        images, _ = pairs_at_doses(clean[None], unit, [self.drawn], noise_free=[self.noise_free], floor_hu=[floor])
        return convert_to_dst_type(images[0], img, dtype=torch.float32)[0]


def _check_shapes(img: Any, noise: Any, needed: int) -> None:
    if img.shape[0] != 1 or tuple(noise.shape[1:]) != tuple(img.shape[1:]):
        raise ValueError(
            f"Expected an image (1, ...) and noise realizations (realizations, ...) of its size, but got {tuple(img.shape)} and "
            f"{tuple(noise.shape)}. Crop both alike."
        )
    if noise.shape[0] < needed:
        raise ValueError(
            f"Expected {needed} or more noise realizations, but got {noise.shape[0]}. Prepare the data with --realizations {needed}."
        )


class RandLowDosed(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandLowDose`; all keys get the same dose and the same noise.

    An entry of :class:`Realizations` is removed afterwards in any case: nothing later could use it, and no loader could
    collate it.

    Args:
        keys: images (C, H, W), or volumes (1, x, y, z), HU, of one size.
        dose_range: see :class:`RandLowDose`; None leaves the images as they are.
        nested_dose_range: see :class:`RandLowDose`; needs ``label_key``.
        noise_key: entry with the noise realizations: (realizations, H, W), HU, or :class:`Realizations`, which carry their own
            ``floor_hu`` and ``noise_free``.
        label_key: the scan from which all keys are made, present or not; nesting lowers its dose as well. None makes each
            image from itself.
        prob: see :class:`RandLowDose`.
        floor_hu: see :class:`RandLowDose`.
        noise_free: see :class:`RandLowDose`.
        allow_missing_keys: skip keys that the item lacks.

    Raises:
        ValueError: a range is invalid, or nesting lacks a ``label_key``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        dose_range: Sequence[float] | None,
        *,
        nested_dose_range: Sequence[float] | None = None,
        noise_key: Hashable = "noise",
        label_key: Hashable | None = None,
        prob: float = 1.0,
        floor_hu: float | None = SCANNER_FLOOR_HU,
        noise_free: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        RandomizableTransform.__init__(self)
        extra = (noise_key,) if label_key is None else (noise_key, label_key)
        BatchTransform.__init__(self, keys, allow_missing_keys, extra_keys=extra)
        if nested_dose_range is not None and (dose_range is None or label_key is None):
            raise ValueError(
                f"Expected a dose_range and a label_key with nested_dose_range {list(nested_dose_range)}, but got "
                f"{dose_range} and {label_key}."
            )
        self.noise_key = noise_key
        self.label_key = label_key
        self.transform = (
            None
            if dose_range is None
            else RandLowDose(
                dose_range,
                nested_dose_range=nested_dose_range,
                prob=prob,
                floor_hu=floor_hu,
                noise_free=noise_free,
            )
        )

    @property
    def realizations_needed(self) -> int:
        """Number of realizations that a scan must have; 0 if no dose is drawn."""
        return 0 if self.transform is None else self.transform.realizations_needed

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to draw."""
        return self.transform is None

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLowDosed:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        if self.transform is not None:
            self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: int) -> None:
        """Draw for an entry that has ``data`` realizations."""
        if self.transform is not None:
            self.transform.randomize(data)

    def is_batch(self, data: Mapping[Hashable, Any]) -> bool:
        """Whether ``data`` is a batch; a volume (1, x, y, z) with noise (realizations, x, y, z) is one item."""
        noise, image = data.get(self.noise_key), data.get(self._sources()[0])
        if image is None or isinstance(image, list):
            return image is not None
        shape = tuple(getattr(noise, "shape", ()))
        return image.ndim == 4 and not (len(image) == 1 and len(shape) == 4 and shape[1:] == tuple(image.shape[1:]))

    def _sources(self) -> list[Hashable]:
        return list(self.keys) if self.label_key is None else [self.label_key]

    def draw(self, item: Mapping[Hashable, Any]) -> DoseDraw | None:
        """Draw the doses of an item; None if its dose is not lowered.

        Raises:
            KeyError: the item has no noise.
            ValueError: the noise has another size, or there are too few realizations.
        """
        if self.transform is None:
            return None
        if self.noise_key not in item:
            raise KeyError(
                f"Expected noise realizations under {self.noise_key!r}, but the item has only {sorted(map(str, item))}. Prepare the "
                "data with --realizations, or name its key with noise_key."
            )
        noise = item[self.noise_key]
        if not isinstance(noise, Realizations):
            for key in self._sources():
                if key in item:
                    _check_shapes(item[key], noise, self.realizations_needed)
        self.randomize(len(noise))
        return self.transform.drawn if self.transform._do_transform else None

    def apply(self, items: Items, drawn: Sequence[DoseDraw | None]) -> Items:
        """Make the images (B, C, H, W), float32, and with nesting the label."""
        if self.transform is not None and any(drawn):
            lowered = [draw is not None for draw in drawn]
            if self.label_key is None:
                for key in self.key_iterator(items):
                    source = stacked(items[key]).float()
                    items[key] = _where(lowered, self._made(source, items[self.noise_key], drawn)[0], source)
            else:
                label = stacked(items[self.label_key]).float()
                images, targets = self._made(label, items[self.noise_key], drawn)
                for key in self.keys:
                    items[key] = _where(lowered, images, stacked(items.get(key, label)).float())
                items[self.label_key] = _where(lowered, targets, label)
        if any(isinstance(one, Realizations) for one in items.get(self.noise_key, ())):
            del items[self.noise_key]
        return items

    def _made(
        self, source: torch.Tensor, noise: Any, drawn: Sequence[DoseDraw | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.transform is not None
        needed = self.realizations_needed
        draws = [draw or DoseDraw(1.0, 1.0, tuple(range(needed))) for draw in drawn]
        unit = []
        for which in range(needed):
            chosen = [_realization(one, draw.realizations[which], source) for one, draw in zip(noise, draws)]
            unit.append(torch.stack(chosen))
        floor = -float("inf") if self.transform.floor_hu is None else self.transform.floor_hu
        told = [(one.noise_free, one.floor_hu) if isinstance(one, Realizations) else None for one in noise]
        rules = [rule or (self.transform.noise_free, floor) for rule in told]
        free, floors = zip(*rules, strict=True)
        return pairs_at_doses(source, unit, draws, noise_free=free, floor_hu=floors)


def _where(lowered: Sequence[bool], images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    if all(lowered):
        return images
    chosen = torch.tensor(lowered, device=images.device).reshape(-1, *[1] * (images.ndim - 1))
    return torch.where(chosen, images, others)


def _realization(noise: Any, number: int, like: torch.Tensor) -> torch.Tensor:
    if isinstance(noise, Realizations):
        return noise.hu(number, device=like.device)
    return torch.as_tensor(noise)[number][None].to(like)
