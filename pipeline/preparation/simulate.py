"""``ct-cncl simulate`` as a function: scans in, low-dose partners and their provenance out."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from ct_cncl.pipeline.preparation.spectra_picture import write_spectra_picture
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import LONGEST, fitting
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.terminal import say, shown
from ct_cncl.transforms.physics import Calibration, DoseSettings, NoiseSpectrum, read_spectrum
from ct_cncl.transforms.physics.inserted_noise import compared_spectra
from ct_cncl.transforms.physics.simulation import CALIBRATIONS, calibrate, low_dose, own_seed, pixel_of
from ct_cncl.transforms.physics.truncation import truncation_warning
from ct_cncl.transforms.series import (
    DicomStorage,
    Scan,
    ScanError,
    ScanSource,
    find_scans,
    from_slices,
    read_scan,
    to_slices,
    write_nifti,
)

_LONGEST_NAME = LONGEST - 16
"""Bytes; the rest is for the temporary name of a record."""


@dataclass(frozen=True)
class SimulateOptions:
    """What ``ct-cncl simulate`` is asked for; see its ``--help``."""

    source: Path
    out: Path
    dose_fraction: float
    realizations: int = 1
    seed: int = 0
    calibration: str = "auto"
    incident_photons: float | None = None
    electronic_variance: float | None = None
    geometry: str = "parallel"
    route: str = "formula"
    bowtie_mm: float | None = None
    current_modulation: float = 0.0
    nps: Path | None = None
    overwrite: bool = False

    def settings(self) -> DoseSettings:
        """The settings before calibration.

        Raises:
            ValueError: a value outside its range.
        """
        settings = DoseSettings(
            dose_fraction=self.dose_fraction,
            electronic_variance=self.electronic_variance or 0.0,
            geometry=self.geometry,
            route=self.route,
            bowtie_mm=self.bowtie_mm,
            current_modulation=self.current_modulation,
        )
        if self.realizations < 1 or self.seed < 0:
            raise ValueError(
                f"Expected 1 or more realisations and a seed of 0 or above but got {self.realizations} and {self.seed}."
            )
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"Expected a calibration out of {', '.join(CALIBRATIONS)} but got {self.calibration!r}.")
        if self.incident_photons is not None:
            if self.calibration != "auto":
                raise ValueError("Expected --incident-photons or --calibration but got both. Leave one out.")
            DoseSettings(incident_photons=self.incident_photons)
        if self.nps is not None and (self.incident_photons is not None or self.calibration not in ("auto", "image")):
            raise ValueError(
                "Expected --nps with a calibration from the image, but got another as well. Leave one out."
            )
        return settings

    def spectrum(self) -> NoiseSpectrum | None:
        """What ``nps`` holds.

        Raises:
            SpectrumError: it is no spectrum.
        """
        return None if self.nps is None else read_spectrum(self.nps)


@dataclass(frozen=True)
class Result:
    """One volume to be made: the NIfTI file, and which realisation it holds, from 1 on."""

    path: Path
    realization: int

    @property
    def provenance(self) -> Path:
        """The JSON file beside it."""
        return self.path.with_name(self.path.name.removesuffix(".gz").removesuffix(".nii") + ".json")

    @property
    def picture(self) -> Path:
        """The spectra of both noises, where they were measured."""
        return self.provenance.with_suffix(".svg")


@dataclass(frozen=True)
class Planned:
    """A scan and its results."""

    source: ScanSource
    results: tuple[Result, ...]

    @property
    def name(self) -> str:
        """Name and sub-folder: what tells the scan from the others of its folder."""
        return PurePosixPath(self.source.relative, self.source.name).as_posix()

    @cached_property
    def digest(self) -> str:
        """One checksum for all files of the scan."""
        return hashlib.sha256("".join(file_checksum(file) for file in self.source.files).encode()).hexdigest()

    def requested(self, result: Result, options: SimulateOptions) -> dict[str, Any]:
        """All that a result depends on: one with the same is the same."""
        values = asdict(options)
        for where in ("source", "out", "realizations", "overwrite", "nps"):
            del values[where]
        if options.nps is not None:
            values["nps_sha256"] = file_checksum(options.nps)
        return values | {
            "source": self.name,
            "source_sha256": self.digest,
            "version": __version__,
            "realization": result.realization,
        }


def simulate_scans(options: SimulateOptions) -> list[Path]:
    """Write low-dose partners of every scan under the source.

    Results of an earlier run with the same options, version and source are kept; so a run that was interrupted goes on. Each
    result has a JSON file of its name beside it, which says how it was made.

    Returns:
        All results, made now or before.

    Raises:
        ValueError: options outside their range.
        ScanError: a scan that cannot be read or is not HU, or a file in the way of a result.
        OutputError: the results cannot be written, or another process is writing there.
    """
    with alone_in(options.out):
        return _simulated(options)


def _simulated(options: SimulateOptions) -> list[Path]:
    settings = options.settings()
    options.spectrum()  # refused before any work
    planned = [_planned(source, options) for source in find_scans(options.source)]
    results = [result for scan in planned for result in scan.results]
    _check_folder(options)
    _refuse_shared_names(results)
    bar = tqdm(planned, desc="checking", unit="scan", leave=False, disable=not sys.stderr.isatty())
    missing = [
        Planned(scan.source, tuple(result for result in scan.results if not _is_finished(result, scan, options)))
        for scan in bar
    ]
    for scan in missing:
        if scan.results:
            _simulate(scan, settings, options)
    done = len(results) - sum(len(scan.results) for scan in missing)
    kept = f", {done} kept from before" if done else ""
    say(f"Low-dose volumes: {len(results)} in {options.out}{kept}")
    return [result.path for result in results]


def _check_folder(options: SimulateOptions) -> None:
    """Find out before the work, not after it, that results cannot be written."""
    source, out = options.source.resolve(), options.out.resolve()
    if source.is_dir() and (out == source or source in out.parents):
        raise OutputError(
            f"Expected results outside of {options.source}, where the next run would take them for scans, but got "
            f"{options.out}. Choose another --out."
        )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        raise OutputError(
            f"Expected to write to {options.out}, but got: {error.strerror or error}. Choose another --out."
        ) from error


def _planned(source: ScanSource, options: SimulateOptions) -> Planned:
    dose = f"_dose{options.dose_fraction:g}"
    room = _LONGEST_NAME - len(f"{dose}_r{options.realizations}{max(source.suffix, '.json', key=len)}")
    folder, name = options.out / source.relative, fitting(source.name, room) + dose
    numbers = range(1, options.realizations + 1)
    return Planned(source, tuple(Result(folder / f"{name}_r{k}{source.suffix}", k) for k in numbers))


def _refuse_shared_names(results: list[Result]) -> None:
    for path, count in Counter(result.provenance for result in results).items():
        if count > 1:
            raise ScanError(
                f"{path}: expected results of their own names but got {count} scans that lead to {path.name}; rename one of "
                "them, or simulate them one by one"
            )


def _is_finished(result: Result, scan: Planned, options: SimulateOptions) -> bool:
    """Whether the result is there as it should be; refuses what is there and is not.

    Raises:
        ScanError: a file of that name that was not made by the same options, or was changed.
    """
    if not (result.path.exists() or result.provenance.exists()):
        return False
    record = _read_record(result.provenance)
    if record is not None and record.get("requested") == plain(scan.requested(result, options)):
        checksum = record.get("result_sha256")
        if checksum is None or not result.path.exists():
            return False  # stopped before it was complete
        if checksum == file_checksum(result.path):
            return True
    if not options.overwrite:
        raise ScanError(
            f"{result.path}: exists already, made with other options or changed since; choose another --out, or replace it "
            "with --overwrite"
        )
    return False


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _simulate(planned: Planned, settings: DoseSettings, options: SimulateOptions) -> None:
    """Make the results of one scan; errors name it."""
    try:
        _make(planned, settings, options)
    except ScanError:
        raise
    except ValueError as error:
        raise ScanError(f"{planned.source.path}: {error}") from error


def _make(planned: Planned, settings: DoseSettings, options: SimulateOptions) -> None:
    scan = read_scan(planned.source)
    axis = 2 if isinstance(scan.storage, DicomStorage) else None
    view, order = to_slices(scan.hu, scan.affine, axis=axis)
    hu = np.ascontiguousarray(view)
    pixel = pixel_of(scan, order)
    calibration = calibrate(
        hu,
        pixel,
        settings,
        own_seed(options.seed, planned.name),
        how=options.calibration,
        incident_photons=options.incident_photons,
        acquisition=scan.acquisition,
        spectrum=options.spectrum(),
        usual_electronics=options.electronic_variance is None,
    )
    warning = truncation_warning(hu, pixel)
    _report(planned.source.name, calibration, warning)
    settings = calibration.apply(settings)
    total = hu.shape[2] * len(planned.results)
    with tqdm(total=total, desc=shown(planned.source.name), unit="slice", disable=not sys.stderr.isatty()) as bar:
        for number, result in enumerate(planned.results):
            seed = own_seed(options.seed, planned.name, result.realization)
            low = low_dose(hu, pixel, settings, seed, progress=_ticks(bar, number * hu.shape[2]))
            spectra = compared_spectra(hu, low, pixel, calibration, options.dose_fraction)
            record = {
                "requested": planned.requested(result, options),
                "settings": asdict(settings),
                "calibration": asdict(calibration),
                "spectra": spectra,
                "noise_seed": seed,
                "pixel_mm": pixel,
                "warnings": [warning] if warning else [],
            }
            _write(from_slices(low, order), result, scan, record)
            if spectra:
                write_spectra_picture(spectra, result.picture)


def _ticks(bar: tqdm, before: int) -> Callable[[int, int], None]:
    """Progress of one volume as that of all, of which ``before`` slices are done."""

    def tick(done: int, _total: int) -> None:
        bar.update(before + done - bar.n)

    return tick


def _report(name: str, calibration: Calibration, warning: str) -> None:
    reason = f" ({calibration.reason})" if calibration.reason else ""
    say(f"{name}: {calibration.incident_photons:.3g} photons, calibration: {calibration.method}{reason}")
    if warning:
        say(f"{name}: warning: {warning}", error=True)


def _write(hu: np.ndarray, result: Result, scan: Scan, record: dict[str, Any]) -> None:
    """Volume and provenance; a record without checksum, written first, marks a volume of ours that is not complete."""
    fresh = not result.provenance.exists()
    _write_record(result.provenance, record | {"result_sha256": None})
    try:
        report = write_nifti(hu, result.path, scan, overwrite=True)
    except BaseException:
        if fresh:
            result.provenance.unlink(missing_ok=True)
        raise
    if report.clipped:
        record["warnings"].append(f"{report.clipped} voxels did not fit into {report.dtype}")
    _write_record(result.provenance, record | {"result_sha256": file_checksum(result.path)})


def _write_record(path: Path, record: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")
