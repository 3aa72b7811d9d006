"""A noise map as a derived DICOM series, written like the maps of ``denoise``."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path

from ct_cncl.pipeline.noise_measurement.measure import noise_map
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.files import scratch_folder
from ct_cncl.transforms.physics.noise_estimate import NoiseEstimate
from ct_cncl.transforms.series import ScanSource
from ct_cncl.transforms.series.content import content_digest
from ct_cncl.transforms.series.derivation import NOISE_MAP, NOISE_MAP_CODE, Processing
from ct_cncl.transforms.series.results import open_results, put_in_place
from ct_cncl.transforms.series.slices import open_slices


def write_dicom_map(source: ScanSource, target: Path, estimate: NoiseEstimate) -> None:
    """Write the expected standard deviation of the noise of every slice, HU.

    Args:
        source: a DICOM series.
        target: folder of the derived series, which is replaced as a whole.
        estimate: noise of the scan.

    Raises:
        ScanError: slices cannot be read or written.
    """
    derivation = Processing(
        (NOISE_MAP_CODE, "Measurement of image noise"),
        f"level {estimate.level_hu:.3g} HU in soft tissue, spread by the rays that cross each pixel",
        "",
        hashlib.sha256(f"{estimate.level_hu!r} {estimate.ray_noise!r}".encode()).hexdigest(),
        __version__,
        content=content_digest(source.files),
        made=datetime.now(timezone.utc),
    )
    with scratch_folder(target.parent) as folder:
        scratch, made = folder / "scratch", folder / "made"
        for place in (scratch, made):
            place.mkdir()
        slices = open_slices(source, scratch)
        writer = open_results(slices, (NOISE_MAP.name,), made, derivation)
        pixel = (float(slices.spacing[0]), float(slices.spacing[1]))
        for number in range(slices.count):
            own = slices.read(number)
            writer.write(number, own, {NOISE_MAP.name: noise_map(own.hu[..., None], pixel, estimate)[..., 0]})
        put_in_place(writer.finish(), {NOISE_MAP.name: target})
