"""Storage of volumes while a training cuts patches from them: on disk, in RAM or on the device."""

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
"""Of a GPU's free memory that a cache may take: networks and activations need the rest."""


def mapped_volume(path: str) -> np.ndarray:
    """Memory-mapped stored values of an uncompressed, unscaled int16 NIfTI: (x, y, z), HU.

    Raises:
        DataError: the file is not of that kind.
    """
    state = Path(path).stat()
    return _mapped_volume(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _mapped_volume(path: str, _inode: int, _changed_ns: int) -> np.ndarray:
    """Opened once; the file's state tells a data set that was prepared again from the one before."""
    image = nib.load(path)
    volume = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    if not isinstance(volume, np.memmap) or volume.dtype != np.dtype("<i2") or volume.ndim != 3:
        raise DataError(
            f"Expected {path} to be an uncompressed int16 volume (x, y, z), but got {volume.dtype} with shape "
            f"{volume.shape}{'' if isinstance(volume, np.memmap) else ', compressed or scaled'}. Prepare the data set with `ct-cncl prepare`."
        )
    return volume


class VolumeStore:
    """Stored int16 values by path, (x, y, z), as tensors.

    Args:
        paths: of uncompressed int16 NIfTI volumes, checked before; a scale in them is not applied.
        cache: "none" leaves them on disk, memory-mapped: what was read once stays in the system's page cache, as long as
            there is room, for all processes; "ram" and "device" copy all of them once, "ram" for slow or shared drives;
            "auto" takes a GPU where they fit into half of its free memory, else the disk.
        device: the device of "device"; on the CPU that is RAM.

    Raises:
        ValueError: another cache.
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
        """(x, y, z) int16, where the cache has it."""
        return self._held[path] if path in self._held else self.on_disk(path)

    def on_disk(self, path: str) -> torch.Tensor:
        """The same, memory-mapped."""
        if path not in self._mapped:
            stored: Any = nib.load(path).dataobj  # type: ignore[attr-defined]
            x, y, z = stored.shape
            first = stored.offset // 2  # length of the header in int16
            # Not numpy's memory map, which keeps a file open for each volume: a system allows about a thousand.
            values = torch.from_file(path, shared=False, size=first + x * y * z, dtype=torch.int16)
            self._mapped[path] = values.as_strided((x, y, z), (1, x, x * y), first)
        return self._mapped[path]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is memory-mapped: it would be copied whole to every worker that is started."""
        return self.__dict__ | {"_mapped": {}}


def fitting_cache(size: int, device: torch.device) -> str:
    """What "auto" means for this many bytes: "device" or "none"."""
    fits = device.type == "cuda" and size <= _SHARE * torch.cuda.mem_get_info(device)[0]
    return "device" if fits else "none"
