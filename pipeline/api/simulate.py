"""``simulate`` as a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ct_cncl.pipeline.api.geometry import pixel_size
from ct_cncl.pipeline.inference.api import Volume
from ct_cncl.pipeline.inference.memory import given
from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.run import simulate_scans
from ct_cncl.transforms.physics.simulation import calibrate, low_dose
from ct_cncl.transforms.series.values import changed


@overload
def simulate(
    source: Volume,
    *,
    dose: float,
    seed: int = 0,
    pixel_mm: float | Sequence[float] | None = None,
    axes: str | None = None,
) -> Volume: ...


@overload
def simulate(
    source: str | Path, out: str | Path, *, dose: float, seed: int = 0, realizations: int = 1, overwrite: bool = False
) -> list[Path]: ...


def simulate(
    source: Any,
    out: str | Path | None = None,
    *,
    dose: float,
    seed: int = 0,
    pixel_mm: float | Sequence[float] | None = None,
    axes: str | None = None,
    realizations: int = 1,
    overwrite: bool = False,
) -> Any:
    """Simulate a lower dose of a volume in memory, or of scans on disk. The physics is in docs/explanations/physics.md.

    Args:
        source: a volume in HU, or a path, as for :func:`ct_cncl.pipeline.denoise`.
        out: for paths only: folder for the results and their records.
        dose: dose of the result as a fraction of the scan's dose, above 0 and up to 1.
        seed: seed of the noise.
        pixel_mm: pixel size of an array in mm, one number or (columns, rows). A MetaTensor or a SimpleITK image states its own.
        axes: order of an array's axes, "xyz", "zyx" or "yxz", if the shape does not show it.
        realizations: for paths only: number of results for each scan, with independent noise.
        overwrite: for paths only: replace results made with other options or by another version.

    Returns:
        For a volume, a volume of the same kind, data type, shape and geometry. For a path, the paths of the low-dose scans.

    Raises:
        ValueError: options or volumes cannot be used. The message is one line.
        TypeError: the source has another type.

    >>> import numpy as np
    >>> from ct_cncl.pipeline import simulate
    >>> volume = np.full((64, 64, 1), 40, np.int16)
    >>> volume[:8] = -1000
    >>> low = simulate(volume, dose=0.25, pixel_mm=0.7)
    >>> low.dtype, bool(low[16:48].std() > volume[16:48].std())
    (dtype('int16'), True)
    """
    if isinstance(source, (str, Path)):
        if out is None or axes is not None or pixel_mm is not None:
            raise ValueError("Expected out=FOLDER for a path, and neither axes nor pixel_mm, since files state them.")
        return simulate_scans(
            SimulateOptions(Path(source), Path(out), dose, realizations=realizations, seed=seed, overwrite=overwrite)
        )
    if out is not None or realizations != 1 or overwrite:
        raise ValueError(
            "Expected out, realizations and overwrite with a path only, but the source is a volume in memory. Omit them; for more "
            "realizations, use other seeds."
        )
    volume = given(source, axes)
    pixel = pixel_size(volume, pixel_mm)
    settings = SimulateOptions(Path(), Path(), dose, seed=seed).settings()
    slices = volume.slices
    hu = np.ascontiguousarray(slices, dtype=np.float32)
    found = calibrate(hu, pixel, settings, seed, usual_electronics=True)
    lower = low_dose(hu, pixel, found.apply(settings), seed)
    result, _ = changed(slices, lower.astype(np.float64) - hu, slices.dtype)
    return volume.like(result)
