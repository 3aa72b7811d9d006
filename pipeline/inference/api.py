"""``ct-cncl denoise`` and :func:`denoise`: denoise one scan or an archive, and give results of the same kind."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from tqdm import tqdm

from ct_cncl.pipeline.common.devices import checked_device
from ct_cncl.pipeline.common.distributed import default_device, is_main_process
from ct_cncl.pipeline.inference.batch import ArchiveRun
from ct_cncl.pipeline.inference.denoising import Denoising
from ct_cncl.pipeline.inference.memory import given
from ct_cncl.pipeline.inference.options import DenoiseOptions
from ct_cncl.pipeline.inference.places import Places, places_of
from ct_cncl.pipeline.inference.streaming import check_save, volume_warnings
from ct_cncl.pipeline.inference.task import RunOptions, Task
from ct_cncl.pipeline.inference.volume import denoised_kinds
from ct_cncl.pipeline.inference.work_folder import work_folder
from ct_cncl.pipeline.networks.precision import is_made_for_bf16
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.noise import quiet
from ct_cncl.transforms.series import ScanError, voxel_spacing
from ct_cncl.transforms.series.archive_file import is_zip, unzip
from ct_cncl.transforms.series.find import Found, search
from ct_cncl.transforms.series.values import RESULT

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import SimpleITK

Volume = TypeVar("Volume", bound="np.ndarray | torch.Tensor | SimpleITK.Image")


@overload
def denoise(
    source: Volume,
    *,
    weights: str | Path | None = None,
    strength: float | str | None = None,
    target_dose: float | str | None = None,
    save: None = None,
    axes: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    trust: bool = False,
    progress: bool = True,
) -> Volume: ...


@overload
def denoise(
    source: Volume,
    *,
    weights: str | Path | None = None,
    strength: float | str | None = None,
    target_dose: float | str | None = None,
    save: str | Sequence[str],
    axes: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    trust: bool = False,
    progress: bool = True,
) -> dict[str, Volume]: ...


@overload
def denoise(
    source: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    strength: float | str | None = None,
    target_dose: float | str | None = None,
    save: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    trust: bool = False,
    progress: bool = True,
    series: Sequence[str] = (),
    strict: bool = False,
    derived: bool = False,
    compression: str = "none",
    deidentify: bool = False,
    preview: str | Path | None = None,
    manifest: str | Path | None = None,
    overwrite: bool = False,
) -> list[Path]: ...


def denoise(
    source: Any,
    out: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    strength: float | str | None = None,
    target_dose: float | str | None = None,
    save: str | Sequence[str] | None = None,
    axes: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    trust: bool = False,
    progress: bool = True,
    series: Sequence[str] = (),
    strict: bool = False,
    derived: bool = False,
    compression: str = "none",
    deidentify: bool = False,
    preview: str | Path | None = None,
    manifest: str | Path | None = None,
    overwrite: bool = False,
) -> Any:
    """Denoise a volume in memory, or scans on disk.

    A volume in memory gives bit for bit the result that its file would give. Values are HU; integers are rounded, never truncated.
    Warnings about scans unlike the training data are Python warnings for volumes, and lines on the terminal for files.

    Args:
        source: a volume in HU with three axes: a NumPy array, a tensor, a MONAI MetaTensor (each of these also with a leading channel axis
            of length 1) or a SimpleITK image. Or a path: a DICOM folder, zip, file or DICOMDIR, NIfTI, MHA, NRRD, TIFF, NPY, or a folder
            of them.
        out: for paths only: folder for the results, or a file name for the result of a single volume.
        weights: a run's best.pt or last.pt, or an exported .ts or .onnx; None for the bundle's own weights.
        strength: share of the network's correction to apply: 0 (the scan itself) to 1, or "low", "medium", "high"; None for 1.
        target_dose: instead of strength: the result looks as if taken at this multiple of the scan's dose, 1 or more, or "clean".
        save: one or several further maps in HU: "removed" (source - result), "noise", "content", "disagreement".
        axes: order of the axes of an array or a tensor without geometry: "xyz" (columns, rows, slices), "zyx" (slices, rows, columns,
            as in SimpleITK's arrays) or "yxz". None infers it from the shape, and fails if the shape is ambiguous.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        batch_size: slices per batch; None to choose it for the device.
        threads: CPU threads for the network; None for torch's default.
        precision: "fp32", "bf16" or "auto".
        trust: run a .ts file without checking its code, and import the classes that a run's config names; see SECURITY.md.
        progress: show a progress bar on a terminal.
        series: for paths only, like all that follow: only these series, by number, name or tag; empty for all.
        strict: refuse series with missing, duplicate or unevenly spaced slices.
        derived: also accept results of this program and other derived images.
        compression: compression of DICOM results: "none", "jpeg2000" or "rle".
        deidentify: remove the patient's identity.
        preview: path of a PNG of the middle slice before and after denoising.
        manifest: folder for records and manifest.jsonl.
        overwrite: replace results made with other options or by another version.

    Returns:
        For a volume, a volume of the same kind, data type, shape and geometry; with ``save``, a dictionary by name of "denoised" and
        the maps, which are float32. For a path, the paths of the denoised scans.

    Raises:
        ValueError: options, weights, volumes or scans cannot be used. The message is one line.
        TypeError: the source has another type.

    >>> import numpy as np
    >>> from ct_cncl.pipeline import denoise
    >>> volume = np.random.default_rng(0).normal(40, 30, (64, 64, 2)).astype(np.int16)
    >>> volume[:8] = -1000
    >>> result = denoise(volume, device="cpu")
    >>> result.shape, result.dtype, bool(result[16:48].std() < 0.7 * volume[16:48].std())
    ((64, 64, 2), dtype('int16'), True)

    An array with the slices first, as from SimpleITK. Here the shape shows the order; otherwise, pass ``axes="zyx"``.

    >>> bool((denoise(volume.T, device="cpu") == result.T).all())
    True
    >>> denoise(np.concatenate([volume] * 32, axis=2), device="cpu")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: Expected a shape that shows which axis runs through the slices, but (64, 64, 64) does not. Pass axes='xyz' ...

    Also return what was removed:

    >>> maps = denoise(volume, save="removed", device="cpu")
    >>> sorted(maps), bool((maps["denoised"] + maps["removed"] == volume).all())
    (['denoised', 'removed'], True)
    """
    network: dict[str, Any] = {
        "weights": weights, "strength": strength, "target_dose": target_dose, "save": save, "device": device,
        "batch_size": batch_size, "threads": threads, "precision": precision, "trust": trust, "progress": progress,
    }  # fmt: skip
    files: dict[str, Any] = {
        "series": (series,) if isinstance(series, str) else tuple(map(str, series)), "strict": strict, "derived": derived,
        "compression": compression, "deidentify": deidentify, "preview": None if preview is None else Path(preview),
        "manifest": None if manifest is None else Path(manifest), "overwrite": overwrite,
    }  # fmt: skip
    if isinstance(source, (str, Path)):
        if out is None:
            raise ValueError("Expected a folder for the results of a path, but got none. Pass out=FOLDER.")
        if axes is not None:
            raise ValueError("axes cannot be combined with a path: files state their geometry. Omit it.")
        return denoise_scans(Path(source), Path(out), **network, **files)
    usual = DenoiseOptions()
    refused = [name for name, value in files.items() if value != getattr(usual, name)]
    if out is not None or refused:
        raise ValueError(
            f"Expected {', '.join(['out'] * (out is not None) + refused)} with a path only, but the source is a volume in memory. Omit it, "
            "or pass the path of a scan."
        )
    return _denoise_in_memory(source, axes, DenoiseOptions(**network), as_maps=save is not None)


def _denoise_in_memory(source: Any, axes: str | None, asked: DenoiseOptions, *, as_maps: bool) -> Any:
    volume = given(source, axes)
    weights = _weights(asked)
    settings = asked.settings(weights.trained_on)
    slices, order = volume.slices, volume.order
    spacing = [float(each) for each in voxel_spacing(order.affine)] if volume.has_geometry else None
    for text in volume_warnings(slices, spacing, weights, settings.strength):
        warnings.warn(text, stacklevel=3)
    with tqdm(total=slices.shape[2], unit="slice", disable=not (asked.progress and sys.stderr.isatty())) as bar:
        results = denoised_kinds(slices, weights, settings, tick=bar.update)
    found = {kind: volume.like(result) for kind, result in results.items()}
    return found if as_maps else found[RESULT]


def denoise_scans(source: Path, out: Path, **options: Any) -> list[Path]:
    """Denoise every scan under ``source``.

    If one of several scans fails, this is recorded and the others are denoised. Results of an earlier run with the same options
    are kept. Under torchrun, each process denoises its share.

    Args:
        source: a file or folder.
        out: folder for the results, their records and the manifest; or, for a single volume, the file to write.
        options: the fields of :class:`DenoiseOptions`, as keywords.

    Returns:
        Paths of the denoised scans of this rank, whether made now or earlier.

    Raises:
        ScanError: nothing was found, the only scan failed, or some of several did.
        CheckpointError: the weights are missing or belong to another network.
        ConfigError: the weights have no config or one that would run code, or the device is unknown.
        OutputError: the results cannot be written.
    """
    asked = DenoiseOptions(**options)
    weights = _weights(asked)
    places = places_of(out, asked.manifest)
    return run_over(source, places, [Denoising(weights, asked)], asked)


def run_over(source: Path, places: Places, tasks: Sequence[Task], asked: RunOptions) -> list[Path]:
    """Run tasks on every scan under ``source``, for ``denoise`` and ``simulate`` alike.

    Args:
        source: a file or folder.
        places: where results go.
        tasks: what to do with each scan.
        asked: the options.

    Returns:
        Paths of the main results of this rank, whether made now or earlier.

    Raises:
        ScanError: nothing was found, the only scan failed, or some of several did.
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
        logger.warning(
            "bf16 is slower than fp32 on this machine, which does not support it in hardware; --precision auto chooses the faster one."
        )
    return weights


@contextmanager
def _searched(source: Path, work: Path) -> Iterator[Found]:
    """Search the source for scans. A zip archive is first unpacked into this process's folder, under its own name."""
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
    """Check before the work, not after it, that results can be written."""
    out = places.folder
    inside = source.resolve()
    if source.is_dir() and (out.resolve() == inside or inside in out.resolve().parents):
        raise OutputError(
            f"Expected results outside {source}, since the next run would take them for scans, but got {places.file or out}. Choose "
            "another --out."
        )
    if not source.exists():
        search(source)  # raises an error before anything is created
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
    """The device called ``name``; "auto" is a GPU if there is one.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    return default_device() if name == "auto" else torch.device(checked_device(name))
