"""``ct-cncl denoise`` and :func:`denoise`: one scan or an archive in, results of the same kind out."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch

from ct_cncl.pipeline.common.devices import checked_device
from ct_cncl.pipeline.common.distributed import default_device, is_main_process
from ct_cncl.pipeline.inference.batch import ArchiveRun, RunOptions, Task
from ct_cncl.pipeline.inference.denoising import Denoising
from ct_cncl.pipeline.inference.options import DenoiseOptions
from ct_cncl.pipeline.inference.places import Places, places_of
from ct_cncl.pipeline.inference.streaming import check_save
from ct_cncl.pipeline.inference.volume import denoise_volume
from ct_cncl.pipeline.inference.work_folder import work_folder
from ct_cncl.pipeline.networks.precision import is_made_for_bf16
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.noise import quiet
from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.archive_file import is_zip, unzip
from ct_cncl.transforms.series.find import Found, search

logger = logging.getLogger(__name__)

Volume = TypeVar("Volume", np.ndarray, torch.Tensor)


@overload
def denoise(source: Volume, out: None = None, **options: Any) -> Volume: ...


@overload
def denoise(source: str | Path, out: str | Path, **options: Any) -> list[Path]: ...


def denoise(source: Any, out: Any = None, **options: Any) -> Any:
    """Denoise a volume in memory, or scans on disk.

    Args:
        source: slices (columns, rows, slices) in HU, as NumPy array or tensor; or a path: a DICOM folder, zip, file or
            DICOMDIR, NIfTI, MHA, NRRD, TIFF, NPY, or a folder of them.
        out: folder for the results of a path, or the name of a file for that of one volume; None for a volume in memory.
        options: by keyword, the fields of :class:`DenoiseOptions`: ``weights``, ``strength`` or ``target_dose``, ``device``,
            ``batch_size``, ``threads`` and ``precision``; for paths the others too.

    Returns:
        A volume of the same kind, type and shape; or the paths of the denoised scans.

    Raises:
        ValueError: options, weights or scans that cannot be used; one line.
    """
    if isinstance(source, (str, Path)):
        if out is None:
            raise ValueError("Expected a folder for the results of a path, but got none. Pass out=FOLDER.")
        return denoise_scans(Path(source), Path(out), **options)
    asked = DenoiseOptions(**options)
    weights = _weights(asked)
    return denoise_volume(source, weights, replace(asked.settings(weights.trained_on), save=()))


def denoise_scans(source: Path, out: Path, **options: Any) -> list[Path]:
    """Denoise every scan under ``source``.

    A scan that fails among several is recorded and the others are done; results of an earlier run with the same options
    are kept. Under torchrun each process does its share.

    Args:
        source: a file or folder.
        out: folder for the results, their records and the manifest; or, for one volume, the file to be written.
        options: by keyword, the fields of :class:`DenoiseOptions`.

    Returns:
        The denoised scans that belong to this rank, made now or before.

    Raises:
        ScanError: nothing found, the only scan failed, or some of several did.
        CheckpointError: no weights, or weights of another network.
        ConfigError: no config beside the weights, or one that would run code; unknown device.
        OutputError: the results cannot be written.
    """
    asked = DenoiseOptions(**options)
    weights = _weights(asked)
    places = places_of(out, asked.manifest)
    return run_over(source, places, [Denoising(weights, asked)], asked)


def run_over(source: Path, places: Places, tasks: Sequence[Task], asked: RunOptions) -> list[Path]:
    """Do tasks for every scan under ``source``: what ``denoise`` and ``simulate`` have in common.

    Args:
        source: a file or folder.
        places: where results go.
        tasks: what is done to each scan.
        asked: the options.

    Returns:
        The main results that belong to this rank, made now or before.

    Raises:
        ScanError: nothing found, the only scan failed, or some of several did.
        OutputError: the results cannot be written.
    """
    _check_folder(source, places)
    with quiet(), work_folder(places.folder) as work, _searched(source, work) as found:
        return ArchiveRun(source, places, found, tasks=tasks, asked=asked, work=work).all()


def _weights(asked: DenoiseOptions) -> Weights:
    device = chosen_device(asked.device)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    weights = open_weights(asked.weights, device, precision=asked.precision, trust=asked.trust)
    check_save(weights, asked.settings(weights.trained_on))
    if weights.precision == "bf16" and not is_made_for_bf16(device) and is_main_process():
        logger.warning("bf16 is slower than fp32 here, where nothing multiplies it; --precision auto chooses.")
    return weights


@contextmanager
def _searched(source: Path, work: Path) -> Iterator[Found]:
    """What lies under the source; a zip archive is unpacked into this process's folder, where it keeps its name."""
    if not is_zip(source):
        yield search(source)
        return
    folder = work / source.stem
    try:
        folder.mkdir()
        yield search(unzip(source, folder))
    except ScanError as error:
        raise ScanError(str(error).replace(str(folder), str(source))) from error


def _check_folder(source: Path, places: Places) -> None:
    """Find out before the work, not after it, that results cannot be written."""
    out = places.folder
    inside = source.resolve()
    if source.is_dir() and (out.resolve() == inside or inside in out.resolve().parents):
        raise OutputError(
            f"Expected results outside of {source}, where the next run would take them for scans, but got {places.file or out}. Choose "
            "another --out."
        )
    if not source.exists():
        search(source)  # says so, before anything is made
    try:
        for folder in (out, *([places.records] if places.records else [])):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise OutputError(
            f"Expected to write to {folder}, but got: {error.strerror or error}. Choose another --out."
        ) from error


def chosen_device(name: str) -> torch.device:
    """The device called ``name`` ("auto": a GPU where there is one).

    Raises:
        ConfigError: unknown name, or no such device in this machine.
    """
    return default_device() if name == "auto" else torch.device(checked_device(name))
