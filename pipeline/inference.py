"""``ct-cncl denoise`` as a function over the bundle's inference.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ct_cncl.pipeline.bundle import installed_bundle
from ct_cncl.pipeline.handlers.checkpoints import CheckpointError
from ct_cncl.pipeline.workflow import ConfigError, build_workflow, config_file, network_config, run_workflow


def denoise_scans(
    source: Path,
    out: Path,
    *,
    weights: Path | None = None,
    batch_size: int = 4,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Denoise every scan under ``source``.

    Args:
        source: a file or folder of NIfTI or DICOM.
        out: folder for the results.
        weights: a run's checkpoint, with the run's config.json beside it; None takes the bundle's own.
        batch_size: slices at once.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overwrite: replace results of an earlier run.
        progress: show a bar.

    Returns:
        The files written.

    Raises:
        ScanError: a scan that cannot be read or written.
        CheckpointError: no weights, or weights of another network.
        ConfigError: no config beside the weights, or one that would run code; a batch size below 1; unknown device.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected a batch size of at least 1, but got {batch_size}.")
    own_weights = installed_bundle() / "models" / "model.pt"
    if weights is None and not own_weights.is_file():
        raise CheckpointError(
            "Expected --weights, since this version ships none, but got none. Train first: `ct-cncl train`, then pass RUN/best.pt."
        )
    overrides: dict[str, Any] = {
        "dataset_dir": str(source),
        "output_dir": str(out),
        "checkpoint": str(own_weights if weights is None else weights),
        "batch_size": batch_size,
        "overwrite": overwrite,
        "progress": progress,
    }
    if device != "auto":
        overrides["device"] = f"$torch.device({checked_device(device)!r})"
    if weights is not None:
        if not weights.is_file():
            raise CheckpointError(f"Expected a checkpoint in {weights}, but there is none. Name a run's best.pt.")
        overrides |= network_config(weights)
    workflow = run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))
    saver = workflow.parser.get_parsed_content("postprocessing").transforms[-1]
    return [report.path for report in saver.reports]


def checked_device(name: str) -> str:
    """``name`` if torch knows such a device here.

    Raises:
        ConfigError: unknown name, or no such device in this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"Expected a device of this machine (auto, cpu, cuda, cuda:N), but got {name!r}: {first_line}."
        ) from error
    return name
