"""Low-contrast lesions, inserted at random into image and reference alike: a denoiser must not take them for noise."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform

from ct_cncl.transforms.anatomy.regions import SOFT_TISSUE_HU
from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked
from ct_cncl.transforms.patches.pixel_size import check_range

TRIES = 8
"""Places that are drawn to find one in soft tissue."""
REACH = 2
"""Distance in pixels around a place within which the mean must be that of soft tissue."""
SPICULES = (5, 13)
"""Bounds of the number of spicules, the upper one excluded."""
SPICULE_LENGTH = (0.3, 1.0)
"""Shortest and longest spicule, as fractions of the radius."""


class Lesion(NamedTuple):
    """An ellipse of uniform contrast with a soft edge, smooth or with spicules."""

    row: float
    column: float
    radii: tuple[float, float]
    """Half axes, pixels."""
    angle: float
    """Angle of the first half axis to the row axis, radians."""
    contrast_hu: float
    edge: float = 1.0
    """Width over which the contrast falls off, pixels."""
    spicules: int = 0
    """Rays that stick out of the ellipse; 0 for a smooth outline."""
    spicule_length: float = 0.5
    """How far they stick out, as a fraction of the radius."""


def lesion_hu(lesion: Lesion, shape: tuple[int, int]) -> torch.Tensor:
    """The HU that a lesion adds, (H, W) float32: its contrast inside, half of it on the edge, nothing two edge widths further out.

    >>> disc = lesion_hu(Lesion(8.0, 8.0, (4.0, 4.0), 0.0, -20.0), (17, 17))
    >>> round(float(disc[8, 8]), 1), round(float(disc[8, 12]), 1), round(float(disc[8, 15]), 1)
    (-20.0, -10.0, -0.0)
    """
    return lesion.contrast_hu * coverages([lesion], torch.empty(shape))[0]


def coverages(lesions: Sequence[Lesion], like: torch.Tensor) -> torch.Tensor:
    """Coverage of the pixels of ``like`` (..., H, W) by each lesion: 1 inside, 1/2 on the edge, 0 outside.

    Returns:
        (lesions, H, W) float32.
    """

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).reshape(-1, 1, 1)

    height, width = like.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=like.device)[:, None] - column([one.row for one in lesions])
    columns = torch.arange(width, dtype=torch.float32, device=like.device) - column([one.column for one in lesions])
    cos, sin = (column([turn(one.angle) for one in lesions]) for turn in (math.cos, math.sin))
    along = (cos * rows + sin * columns) / column([one.radii[0] for one in lesions])
    across = (cos * columns - sin * rows) / column([one.radii[1] for one in lesions])
    distance = torch.sqrt(along**2 + across**2)  # from the centre; 1 on the ellipse
    for number, one in enumerate(lesions):
        outline: float | torch.Tensor = 1.0
        if one.spicules:
            rays = 0.5 + 0.5 * torch.cos(one.spicules * torch.atan2(across[number], along[number]))
            outline = 1.0 + one.spicule_length * rays**3
        distance[number] -= outline
    pixels = distance * column([min(one.radii) for one in lesions])  # approximate distance from the edge
    return torch.sigmoid(-4 / column([one.edge for one in lesions]) * pixels)


class RandLesions(RandomizableTransform):
    """One to ``most`` faint lesions in the soft tissue of a patch, half of them with spicules.

    Args:
        prob: probability that a patch gets any.
        contrast_hu: lowest and highest absolute contrast, HU, drawn log-uniformly, so most lesions are faint. Darker and brighter
            are equally likely.
        radius: lowest and highest half axis, pixels, drawn log-uniformly. The default is 2 to 15 mm across for pixels of 0.75 mm.
        edge: lowest and highest width of the edge, pixels.
        most: largest number of lesions in a patch.

    Raises:
        ValueError: a range is invalid.
    """

    def __init__(
        self,
        prob: float = 0.1,
        *,
        contrast_hu: Sequence[float] = (3.0, 60.0),
        radius: Sequence[float] = (1.3, 10.0),
        edge: Sequence[float] = (0.5, 2.0),
        most: int = 2,
    ) -> None:
        super().__init__(prob)
        self.contrast_hu = check_range("contrast_hu", contrast_hu, above=0)
        self.radius = check_range("radius", radius, above=0)
        self.edge = check_range("edge", edge, above=0)
        if most < 1:
            raise ValueError(f"Expected most of at least 1, but got {most}.")
        self.most = most
        self.lesions: list[Lesion] = []
        """The lesions last drawn."""

    def randomize(self, data: torch.Tensor) -> None:
        """Draw lesions for a patch (C, H, W), HU, centred in soft tissue; a lesion for which no such place is found is left out."""
        super().randomize(None)
        self.lesions = []
        if not self._do_transform:
            return
        plane = data[len(data) // 2]
        for _ in range(int(self.R.randint(1, self.most + 1))):
            place = self._place(plane)
            radii = np.exp(self.R.uniform(*np.log(self.radius), size=2))
            angle, contrast = self.R.uniform(0, math.pi), np.exp(self.R.uniform(*np.log(self.contrast_hu)))
            sign = 1.0 if self.R.randint(2) else -1.0
            edge, spicules = self.R.uniform(*self.edge), int(self.R.randint(*SPICULES)) if self.R.randint(2) else 0
            length = self.R.uniform(*SPICULE_LENGTH)
            if place is not None:
                half_axes = (float(radii[0]), float(radii[1]))
                lesion = Lesion(
                    *place, half_axes, float(angle), float(sign * contrast), float(edge), spicules, float(length)
                )
                self.lesions.append(lesion)

    def _place(self, plane: torch.Tensor) -> tuple[float, float] | None:
        height, width = plane.shape
        found = None
        for row, column in self.R.uniform(0, (height - 1, width - 1), size=(TRIES, 2)):  # always draw all of them
            y, x = int(row + 0.5), int(column + 0.5)
            around = plane[max(y - REACH, 0) : y + REACH + 1, max(x - REACH, 0) : x + REACH + 1]
            if found is None and SOFT_TISSUE_HU[0] < float(around.float().mean()) < SOFT_TISSUE_HU[1]:
                found = (float(row), float(column))
        return found

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Add the lesions to a patch (C, H, W), HU, in all of its slices: a lesion is larger than a slice is thick."""
        if randomize:
            self.randomize(img)
        return img.float() + lesions_hu(self.lesions, coverages(self.lesions, img))


def lesions_hu(lesions: Sequence[Lesion], covered: torch.Tensor) -> torch.Tensor:
    """The HU that all lesions together add, (H, W), from their coverages ``covered`` (lesions, H, W)."""
    contrasts = torch.tensor([one.contrast_hu for one in lesions], dtype=torch.float32, device=covered.device)
    return torch.tensordot(contrasts, covered, dims=1)


def lesion_weights(weight: float, covered: torch.Tensor) -> torch.Tensor:
    """Loss weights (H, W), float32: ``weight`` inside lesions, 1 elsewhere, in between on soft edges.

    >>> disc = coverages([Lesion(8.0, 8.0, (4.0, 4.0), 0.0, -20.0)], torch.zeros(1, 17, 17))
    >>> found = lesion_weights(5.0, disc)
    >>> round(float(found[8, 8]), 1), round(float(found[8, 12]), 1), round(float(found[0, 0]), 1)
    (5.0, 3.0, 1.0)
    """
    return 1 + (weight - 1) * covered.amax(dim=0)


class RandLesionsd(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandLesions`; all keys get the same lesions.

    Args:
        keys: the image and its reference, (C, H, W), HU.
        prob: see :class:`RandLesions`; 0 inserts none.
        contrast_hu: see :class:`RandLesions`.
        radius: see :class:`RandLesions`.
        edge: see :class:`RandLesions`.
        most: see :class:`RandLesions`.
        tissue_key: the image in which soft tissue is looked for; by default the reference, which has less noise.
        weight: loss weight of a lesion's pixels relative to all others. The weights under ``weight_key`` are multiplied by it,
            or made if the item has none; 1 leaves them alone. A squared loss then learns as if lesions were that many times as
            frequent: they keep more of their contrast, but noise is more often taken for a lesion.
        weight_key: entry with the loss weights (1, H, W).
        allow_missing_keys: skip keys that the item lacks.

    Raises:
        ValueError: a range is invalid, or the weight is 0 or less.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        *,
        contrast_hu: Sequence[float] = (3.0, 60.0),
        radius: Sequence[float] = (1.3, 10.0),
        edge: Sequence[float] = (0.5, 2.0),
        most: int = 2,
        tissue_key: Hashable = "label",
        weight: float = 1.0,
        weight_key: Hashable = "weight",
        allow_missing_keys: bool = False,
    ) -> None:
        if not weight > 0:
            raise ValueError(f"Expected a weight of lesions above 0, but got {weight}.")
        RandomizableTransform.__init__(self)
        BatchTransform.__init__(self, keys, allow_missing_keys, extra_keys=(tissue_key, weight_key))
        self.tissue_key = tissue_key
        self.weight = float(weight)
        self.weight_key = weight_key
        self.transform = RandLesions(prob, contrast_hu=contrast_hu, radius=radius, edge=edge, most=most)

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to draw."""
        return self.transform.prob == 0

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLesionsd:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: torch.Tensor) -> None:
        """Draw lesions for the image ``data``."""
        self.transform.randomize(data)

    def draw(self, item: Mapping[Hashable, Any]) -> list[Lesion]:
        """Draw the lesions of one item."""
        if self.fixed:
            return []
        self.randomize(item[self.tissue_key])
        return self.transform.lesions

    def apply(self, items: Items, drawn: Sequence[list[Lesion] | None]) -> Items:
        """Insert the lesions; images come back as (B, C, H, W), float32."""
        if self.fixed:
            return items
        lesions_of = [lesions or [] for lesions in drawn]
        images = items[self.tissue_key]
        covered = [
            coverages(lesions, image) if lesions else None for lesions, image in zip(lesions_of, images, strict=True)
        ]
        if any(lesions_of):
            added = [
                image.new_zeros(image.shape[-2:], dtype=torch.float32) if one is None else lesions_hu(lesions, one)
                for one, lesions, image in zip(covered, lesions_of, images, strict=True)
            ]
            for key in self.key_iterator(items):
                items[key] = stacked([image.float() + one for image, one in zip(items[key], added, strict=True)])
        if self.weight != 1:
            before = items.get(self.weight_key, [torch.ones_like(image[:1], dtype=torch.float32) for image in images])
            items[self.weight_key] = stacked(
                [
                    one if inside is None else one * lesion_weights(self.weight, inside)
                    for one, inside in zip(before, covered, strict=True)
                ]
            )
        return items
