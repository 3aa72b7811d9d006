"""Holds the volumes from which training cuts patches: on disk, in RAM or on the device."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ct_cncl.transforms.common.errors import DataError

CACHES = ("auto", "ram", "device", "none")
_SHARE = 0.5
"""Share of a GPU's free memory that the cache may take; the network and its activations need the rest."""


def mapped_volume(path: str) -> np.ndarray:
    """Return the stored values of an uncompressed, unscaled int16 NIfTI file as a memory map, (x, y, z), HU.

    Raises:
        DataError: the file is not of that kind.
    """
    state = Path(path).stat()
    return _mapped_volume(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _mapped_volume(path: str, _inode: int, _changed_ns: int) -> np.ndarray:
    """Open a volume once; inode and time are part of the cache key, so that a data set that was prepared again is read again."""
    image = nib.load(path)
    volume = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    if not isinstance(volume, np.memmap) or volume.dtype != np.dtype("<i2") or volume.ndim != 3:
        raise DataError(
            f"Expected {path} to be an uncompressed int16 volume (x, y, z), but got {volume.dtype} with shape "
            f"{volume.shape}{'' if isinstance(volume, np.memmap) else ', compressed or scaled'}. Prepare the data set with `ct-cncl prepare`."
        )
    return volume


class VolumeStore:
    """Stored int16 values as tensors (x, y, z), by path.

    Args:
        paths: uncompressed int16 NIfTI volumes that have been checked before; their scaling is not applied.
        cache: "none" leaves them on disk, memory-mapped; data read once stay in the system's page cache, for all processes, as long
            as there is room. "ram" and "device" copy all volumes once; "ram" is for slow or shared drives. "auto" means "device" for
            a GPU if the volumes fit into half of its free memory, else "none".
        device: the device for "device" and "auto"; None is the CPU.

    Raises:
        ValueError: the cache is not one of these.
    """

    def __init__(self, paths: Iterable[str], *, cache: str = "none", device: torch.device | None = None) -> None:
        if cache not in CACHES:
            raise ValueError(f"Expected cache to be one of {', '.join(CACHES)}, but got {cache!r}.")
        device = device or torch.device("cpu")
        self._mapped: dict[str, torch.Tensor] = {}
        self._held: dict[str, torch.Tensor] = {}
        paths = list(dict.fromkeys(paths))
        self.bytes = sum(self.on_disk(path).nbytes for path in paths)
        self.cache = fitting_cache(self.bytes, device) if cache == "auto" else cache
        if self.cache != "none":
            place = device if self.cache == "device" else torch.device("cpu")
            self._held = {path: self.on_disk(path).to(place, copy=True) for path in paths}

    def __getitem__(self, path: str) -> torch.Tensor:
        """Return (x, y, z) int16 from the cache, or memory-mapped if it is not cached."""
        return self._held[path] if path in self._held else self.on_disk(path)

    def on_disk(self, path: str) -> torch.Tensor:
        """Return (x, y, z) int16, memory-mapped on the CPU."""
        if path not in self._mapped:
            stored: Any = nib.load(path).dataobj  # type: ignore[attr-defined]
            x, y, z = stored.shape
            first = stored.offset // 2  # length of the header in int16
            # Not NumPy's memory map, which keeps a file open for each volume: systems allow about a thousand.
            values = torch.from_file(path, shared=False, size=first + x * y * z, dtype=torch.int16)
            self._mapped[path] = values.as_strided((x, y, z), (1, x, x * y), first)
        return self._mapped[path]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory-mapped tensors, which would be copied as a whole to every worker process."""
        return self.__dict__ | {"_mapped": {}}


def fitting_cache(size: int, device: torch.device) -> str:
    """The cache that "auto" chooses for ``size`` bytes: "device" or "none"."""
    fits = device.type == "cuda" and size <= _SHARE * torch.cuda.mem_get_info(device)[0]
    return "device" if fits else "none"
