"""``noise`` as a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import torch

from ct_cncl.pipeline.api.geometry import pixel_size
from ct_cncl.pipeline.inference.memory import given
from ct_cncl.pipeline.noise_measurement.measure import measure_scan
from ct_cncl.pipeline.noise_measurement.run import measure_scans
from ct_cncl.transforms.common.json_values import plain

if TYPE_CHECKING:
    import SimpleITK

Volume: TypeAlias = "np.ndarray | torch.Tensor | SimpleITK.Image"


@overload
def noise(
    source: Volume, *, pixel_mm: float | Sequence[float] | None = None, axes: str | None = None
) -> dict[str, Any]: ...


@overload
def noise(
    source: str | Path,
    out: str | Path | None = None,
    *,
    maps: bool = False,
    repeat: str | Path | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]: ...


def noise(
    source: Any,
    out: str | Path | None = None,
    *,
    pixel_mm: float | Sequence[float] | None = None,
    axes: str | None = None,
    maps: bool = False,
    repeat: str | Path | None = None,
    overwrite: bool = False,
) -> Any:
    """Measure the noise of a volume in memory, or of scans on disk, without a reference.

    Args:
        source: a volume in HU, or a path, as for :func:`ct_cncl.pipeline.denoise`.
        out: for paths only: folder for noise.json, noise.csv, noise.html and maps; None only prints the figures.
        pixel_mm: pixel size of an array in mm, one number or (columns, rows). A MetaTensor or a SimpleITK image states its own.
        axes: order of an array's axes, "xyz", "zyx" or "yxz", if the shape does not show it.
        maps: for paths only: write a noise map of each scan.
        repeat: for paths only: a second scan of the same object. It is subtracted, which gives exact figures.
        overwrite: for paths only: replace earlier results.

    Returns:
        For a volume, a dictionary with "level_hu", "level_error" (relative), "mean_frequency_per_mm", "peak_frequency_per_mm" and
        others. For a path, a list of such dictionaries, one per scan.

    Raises:
        ValueError: options or volumes cannot be used, or there is too little soft tissue to measure in. The message is one line.
        TypeError: the source has another type.

    >>> import numpy as np
    >>> from ct_cncl.pipeline import noise
    >>> volume = np.random.default_rng(0).normal(40, 20, (128, 128, 2))
    >>> volume[:8] = -1000
    >>> abs(noise(volume, pixel_mm=0.7)["level_hu"] - 20) < 1
    True
    """
    if isinstance(source, (str, Path)):
        if axes is not None or pixel_mm is not None:
            raise ValueError("Expected neither axes nor pixel_mm for a path, since files state them. Omit them.")
        second = None if repeat is None else Path(repeat)
        return measure_scans(
            Path(source), out=None if out is None else Path(out), maps=maps, repeat=second, overwrite=overwrite
        )
    if out is not None or maps or repeat is not None or overwrite:
        raise ValueError(
            "Expected out, maps, repeat and overwrite with a path only, but the source is a volume in memory. Omit them."
        )
    volume = given(source, axes)
    hu = np.ascontiguousarray(volume.slices, dtype=np.float32)
    return plain(measure_scan(hu, pixel_size(volume, pixel_mm)).figures())
