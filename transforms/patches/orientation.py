"""Random flips along both axes and a random transposition: the eight orientations of a square patch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform

from ct_cncl.transforms.patches.batch import BatchTransform, Items, stacked


class Orientation(NamedTuple):
    """One orientation of a patch: flips come first, the transposition last."""

    flip_x: bool
    flip_y: bool
    transpose: bool


def oriented(image: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Flip and transpose an image (..., H, W).

    >>> oriented(torch.tensor([[1, 2], [3, 4]]), Orientation(True, False, True)).tolist()
    [[3, 1], [4, 2]]
    """
    axes = [axis for axis, flip in ((-2, orientation.flip_x), (-1, orientation.flip_y)) if flip]
    image = image.flip(axes) if axes else image
    return image.transpose(-1, -2) if orientation.transpose else image


class RandOrientation(RandomizableTransform):
    """One of the eight orientations of a square image, all equally likely."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.orientation = Orientation(False, False, False)
        """The orientation last drawn."""

    def randomize(self, data: Any = None) -> None:
        """Draw an orientation."""
        bits = int(self.R.randint(8))
        self.orientation = Orientation(bool(bits & 1), bool(bits & 2), bool(bits & 4))

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Reorient (C, H, H) or (B, C, H, H). An oblong image changes its shape when a transposition is drawn."""
        if randomize:
            self.randomize()
        return oriented(img, self.orientation)


class RandOrientationd(RandomizableTransform, BatchTransform):
    """Dictionary version of :class:`RandOrientation`; all keys are turned alike.

    Args:
        keys: square images (C, H, H).
        allow_missing_keys: skip keys that the item lacks.
    """

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False) -> None:
        RandomizableTransform.__init__(self)
        BatchTransform.__init__(self, keys, allow_missing_keys)
        self.transform = RandOrientation()

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandOrientationd:
        """Seed the random draws, as MONAI's ``Randomizable`` does."""
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw an orientation."""
        self.transform.randomize()

    def draw(self, item: Mapping[Hashable, Any]) -> Orientation:
        """Draw the orientation of one item."""
        self.randomize()
        return self.transform.orientation

    def apply(self, items: Items, drawn: Sequence[Orientation]) -> Items:
        """Reorient each patch; they come back as (B, C, H, H)."""
        for key in self.key_iterator(items):
            items[key] = stacked([oriented(image, turn) for image, turn in zip(items[key], drawn, strict=True)])
        return items
