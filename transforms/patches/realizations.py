"""Stored noise realizations of a scan, of which only the part inside a patch is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from ct_cncl.transforms.common.errors import DataError


class StoredNoise(NamedTuple):
    """One noise realization; ``values * step_hu`` gives HU."""

    values: np.ndarray
    """(x, y, z) int16, memory-mapped."""
    step_hu: float


def open_noise(path: str) -> StoredNoise:
    """Memory-map a noise realization: an uncompressed int16 NIfTI file with its scale in ``scl_slope``.

    Raises:
        DataError: the file is not of this kind.
    """
    state = Path(path).stat()
    return _open_noise(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _open_noise(path: str, _inode: int, _changed_ns: int) -> StoredNoise:
    """Open each file once, as :func:`~ct_cncl.transforms.dataset.volume_store.mapped_volume` does."""
    stored: Any = nib.load(path).dataobj  # type: ignore[attr-defined]
    values = stored.get_unscaled()
    if not isinstance(values, np.memmap) or values.dtype != np.dtype("<i2") or values.ndim != 3 or stored.inter != 0:
        raise DataError(
            f"Expected {path} to be an uncompressed int16 noise realization (x, y, z) with a scale, but got {values.dtype} with shape "
            f"{values.shape}. Prepare the data set with `ct-cncl prepare --realizations K`."
        )
    return StoredNoise(values, float(stored.slope))


class Realizations:
    """Noise realizations of one place in a scan, each (C, H, W), stored as integer multiples of a step in HU.

    Cutting (``noise[..., x0:x1, y0:y1]``) reads nothing; :meth:`hu` reads one realization.

    Args:
        stored: one tensor (C, H, W) per realization.
        steps_hu: the step of each realization, HU.
        noise_free: whether the scan itself has no noise (a phantom).
        floor_hu: lowest value that the scanner stores, HU.
    """

    def __init__(
        self,
        stored: Sequence[torch.Tensor],
        steps_hu: Sequence[float],
        *,
        noise_free: bool = False,
        floor_hu: float = -1024.0,
    ) -> None:
        self.stored = list(stored)
        self.steps_hu = list(steps_hu)
        self.noise_free = noise_free
        self.floor_hu = floor_hu

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, place: Any) -> Realizations:
        cut = [one[place] for one in self.stored]
        return Realizations(cut, self.steps_hu, noise_free=self.noise_free, floor_hu=self.floor_hu)

    @property
    def shape(self) -> tuple[int, ...]:
        """(realizations, H, W), the shape that a tensor of them would have."""
        return (len(self.stored), *self.stored[0].shape[-2:])

    def hu(self, number: int, *, device: torch.device | None = None) -> torch.Tensor:
        """One realization (C, H, W), float32, HU."""
        return self.stored[number].to(device=device, dtype=torch.float32) * self.steps_hu[number]
