"""Functions that the bundle's configs call: locations, the default data set, and the record of a run."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from ct_cncl import pipeline
from ct_cncl.pipeline.common.distributed import is_main_process, start_processes, world_size
from ct_cncl.pipeline.common.threads import threads_beside_others
from ct_cncl.pipeline.handlers.checkpoints import resuming
from ct_cncl.pipeline.workflow.run_values import check_paths, check_run_values, value_at
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain, read_json
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.terminal import say
from ct_cncl.transforms.dataset.datalist import DATALIST, entries, read_datalist, short_repeated, verify_checksums

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

PHANTOMS = {"training": 24, "validation": 4, "test": 4}
"""Number of phantom "patients" in each split of the default data set."""
PHANTOM_SLICES = 4
PHANTOM_DOSE = 0.25


def bundle_root() -> str:
    """The bundle's folder: that of the running config; else the working directory, if it is a bundle; else that of the package.

    With this order, each of several bundles in one process finds its own weights. To use another bundle's, pass ``--bundle_root DIR``.
    """
    workflow = _running_workflow()
    if workflow is not None and (workflow.config_root_path / "metadata.json").is_file():
        return str(workflow.config_root_path.absolute().parent)
    here = Path.cwd()
    if (here / "configs" / "metadata.json").is_file():
        return str(here)
    return str(installed_bundle())


def installed_bundle() -> Path:
    """The folder of the bundle that contains this package or is contained in it.

    The package of a checkout contains ``bundles/ct_cncl``; a packed bundle contains the package.

    Raises:
        FileNotFoundError: the package was installed without a bundle.
    """
    around = Path(pipeline.__file__).resolve().parents[2]  # the folder around the package
    if (around / "configs" / "metadata.json").is_file():
        return around
    spec = importlib.util.find_spec("ct_cncl.bundle")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "configs" / "metadata.json").is_file():
            return Path(folder)
    raise FileNotFoundError(
        "Expected the bundle in the package ct_cncl.bundle, but it is not there. Reinstall ct-cncl."
    )


def default_dataset_dir() -> str:
    """Folder of the phantom data set, in the user's cache. It is used if no data set is named."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(cache) / "ct-cncl" / "phantoms-v1")


def dataset_entries(dataset_dir: str | Path | None, split: str, *, verify: bool = True) -> list[dict[str, Any]]:
    """Read the entries of one split. The default phantom data set is generated if it is asked for and missing.

    Args:
        dataset_dir: a data set written by ``ct-cncl prepare``; None for the phantoms in ``default_dataset_dir()``.
        split: "training", "validation" or "test".
        verify: compare every volume of the split with its checksum.

    Returns:
        Entries with absolute paths under "image" and "label".

    Raises:
        DataError: there is no data set, the split is empty, or a volume has changed.
    """
    dataset_dir = default_dataset_dir() if dataset_dir is None else dataset_dir
    if Path(dataset_dir) == Path(default_dataset_dir()):
        _prepare_phantoms_once(Path(dataset_dir))
    content = read_datalist(dataset_dir)
    chosen = entries(content, split)
    if verify:
        verify_checksums(content, (split,))
    return chosen


class DatasetSplit(Sequence[dict[str, Any]]):
    """Entries of one split of a prepared data set. They are read on first use, so that a config can be built without data.

    Args:
        dataset_dir: a data set written by ``ct-cncl prepare``; None for phantoms, which are generated once in the user's cache.
        split: "training", "validation" or "test".
        also: another data set, whose entries follow; None for none.
        least_slices: entries with fewer slices are repeated, so that they weigh about as much as one with this many.
        full_dose_as_input: use the full-dose volume as input, too, as for training an autoencoder.

    Raises:
        DataError: on first use: there is no data set, the split is empty, or a volume has changed.
    """

    def __init__(
        self,
        dataset_dir: str | Path | None,
        split: str,
        *,
        also: str | Path | None = None,
        least_slices: int = 1,
        full_dose_as_input: bool = False,
    ) -> None:
        self.folders = [dataset_dir] if also is None else [dataset_dir, also]
        self.split = split
        self.least_slices = least_slices
        self.full_dose_as_input = full_dose_as_input

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """All entries."""
        found = [entry for folder in self.folders for entry in dataset_entries(folder, self.split)]
        if self.full_dose_as_input:
            found = [entry | {"image": entry["label"]} for entry in found]
        return short_repeated(found, self.least_slices)

    @property
    def own_entries(self) -> list[dict[str, Any]]:
        """The entries of ``dataset_dir`` only, each once, without those of ``also``."""
        return dataset_entries(self.folders[0], self.split, verify=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: Any) -> Any:
        return self.entries[number]


def _prepare_phantoms_once(folder: Path) -> None:
    if is_main_process() and not (folder / DATALIST).is_file():
        with alone_in(folder, wait=True):  # another run may be generating them right now
            if not (folder / DATALIST).is_file():
                _prepare_phantoms(folder)
    if world_size() > 1:
        start_processes()
        distributed.barrier()


def _prepare_phantoms(folder: Path) -> None:
    from tqdm import tqdm

    from ct_cncl.transforms.dataset.simulated_cases import phantom_cases
    from ct_cncl.transforms.dataset.writer import split_cases, write_dataset

    for left in folder.parent.glob(f".{folder.name}.*.part"):  # left by a killed preparation, since we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    say(
        f"No data set named: preparing {sum(PHANTOMS.values())} phantoms in {folder}, once (takes some minutes).",
        error=True,
    )
    first_seed, cases = 0, {}
    for split, count in PHANTOMS.items():
        cases[split] = phantom_cases(count, first_seed=first_seed, slices=PHANTOM_SLICES, dose_fraction=PHANTOM_DOSE)
        first_seed += count
    splits = split_cases(cases["training"], validation=cases["validation"], test=cases["test"])
    with tqdm(total=first_seed, desc="preparing phantoms", unit="phantom", disable=not sys.stderr.isatty()) as bar:
        write_dataset(folder, splits, salt="phantoms", progress=lambda done, _total: bar.update(done - bar.n))


def start_run(*, seed: int) -> None:
    """Join the other processes and seed everything, before any network or transform exists.

    Nothing is written, since MONAI's ``load`` also calls this, without training.

    Args:
        seed: seed of weights and samples.

    Raises:
        ConfigError: with a value of the running config, a training would have no result. ``ct-cncl train`` refuses it earlier;
            for ``python -m monai.bundle run``, this is the only check.
    """
    from monai.utils import set_determinism

    start_processes()
    config = _running_config()
    if config is not None:
        check_paths(value_at(config, key) for key in ("output_dir", "dataset_dir", "start_from"))
        check_run_values(config, processes=world_size())
    set_determinism(seed=seed)


def record_run(
    output_dir: str | Path, *, seed: int, resume: bool | str = False, writer: SummaryWriter | None = None
) -> None:
    """Write the run's record into its folder when training begins.

    The record consists of ``config.json`` (all config files and overrides merged) and ``run.json`` (git revision, seed, versions,
    machine). A resumed run adds to ``run.json`` and leaves ``config.json`` alone.

    Args:
        output_dir: the run's folder.
        seed: seed of weights and samples.
        resume: whether a run in ``output_dir`` is resumed, see :func:`~ct_cncl.pipeline.handlers.checkpoints.resuming`.
        writer: TensorBoard writer for the hyperparameters; None for none.

    Raises:
        OutputError: the folder cannot be written.
        ConfigError: MONAI would change the folder's path.
    """
    if not is_main_process():
        return
    check_paths([output_dir])
    folder = Path(output_dir)
    record = read_json(folder / "run.json") if resuming(folder, resume) and (folder / "run.json").is_file() else []
    shared = _share_cores(record)
    record.append(_run_record(seed) | shared)
    config = _running_config()
    if config is not None and not (folder / "config.json").is_file():
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(plain(config), indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if writer is not None and config is not None:
        from ct_cncl.pipeline.workflow.hyper_parameters import write_hyper_parameters

        write_hyper_parameters(writer, config)


def _share_cores(record: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Leave busy cores to other jobs, and return what to record: a resumed run takes as many threads as it began with.

    Another number of threads adds in another order, so that the weights would differ in their last digits.
    """
    own = torch.get_num_threads()
    if torch.cuda.is_available():
        return {}
    began = record[0].get("threads_beside_other_jobs") if record and "OMP_NUM_THREADS" not in os.environ else None
    threads = threads_beside_others(own) if not record else (began or own)
    if threads == own:
        return {}
    torch.set_num_threads(threads)
    why = "The run began next to other jobs" if began else f"Other jobs are running on these {os.cpu_count()} cores"
    logger.warning(f"{why}: training takes {threads} of {own} threads. Set OMP_NUM_THREADS to choose another number.")
    return {"threads_beside_other_jobs": threads}


def _run_record(seed: int) -> dict[str, Any]:
    import monai
    import numpy as np

    return {
        "seed": seed,
        "git_revision": _git_revision(),
        "versions": {
            "ct-cncl": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "monai": monai.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "processes": world_size(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _running_config() -> dict[str, Any] | None:
    """The merged config of the running workflow; None if none is running."""
    workflow = _running_workflow()
    if workflow is None:
        return None
    config = dict(workflow.parser.get())
    for key in ("_meta_", "_desc_"):
        config.pop(key, None)
    return config


def _running_workflow() -> ConfigWorkflow | None:
    """The running workflow; None if there is none. MONAI passes it to no expression, so it is looked up on the stack."""
    from monai.bundle import ConfigWorkflow

    frame = inspect.currentframe()
    while frame is not None:
        workflow = frame.f_locals.get("self")
        if isinstance(workflow, ConfigWorkflow):
            return workflow
        frame = frame.f_back
    return None
